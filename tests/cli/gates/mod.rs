//! Around a deploy, through the program itself: gates, guards, checks, and who is told, one file for each theme.

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
