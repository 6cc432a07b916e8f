//! The compiled program from outside, both ends of it running: what goes through arrives, what
//! breaks is reported, and nothing hangs.

#![cfg(feature = "cli")]

mod access;
mod addresses;
mod asleep;
mod connections;
mod control;
mod datagrams;
mod demo;
mod descriptors;
mod dialing;
mod drain;
mod ends;
mod file;
mod homes;
mod init;
mod lanes;
mod links;
mod log;
mod middlebox;
mod names;
mod proxy;
mod readme;
mod reload;
mod reverse;
mod routes;
mod signals;
mod slow;
mod status;
mod told;
mod trust;
mod unix;
mod waiting;
mod web;

#[path = "../support/mod.rs"]
mod support;
