//! larder from outside: the built program against a fake upstream that misbehaves on command, with real clients.

mod cargo;
mod connection;
mod scratch;
mod support;
mod tidy;
mod tiny_registry;
mod warm;
