//! Tests of the gates before and after a deployment, of `guard` and `check`, and of notices: one file for each subject.

mod actions;
mod check;
mod deploy;
mod guard;
mod helpers;
mod losses;
mod notices;
mod postgres;
mod retention;
mod whole_deployment;
