//! Stores in S3, encryption, `copy`, `doctor` and several stores as users see them: these tests run the program with
//! every S3 server. Each file has one subject.

#[macro_use]
mod helpers;

mod at_once;
mod copy;
mod doctor;
mod encryption;
mod every_command;
mod guard;
mod listing;
mod settings;
mod several_stores;
mod traffic;
