//! What people see of stores in S3, encryption, `copy`, `doctor` and several stores, through the program itself, on every S3
//! server: one file for each theme.

#[macro_use]
mod helpers;

mod at_once;
mod copy;
mod doctor;
mod encryption;
mod every_command;
mod listing;
mod settings;
mod several_stores;
mod traffic;
