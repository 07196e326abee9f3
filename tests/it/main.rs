//! larder from outside: the built program against a fake upstream that misbehaves on command, with real clients.

mod cargo;
mod cli;
mod connection;
mod crash;
mod outage;
mod crates;
mod disk;
mod index;
mod scratch;
mod server;
mod start;
mod support;
mod tidy;
mod tiny_registry;
mod warm;
