//! One module for each command: parse, call, print.

pub(crate) mod audit;
pub(crate) mod cert;
pub(crate) mod compact;
pub(crate) mod doctor;
pub(crate) mod follow;
pub(crate) mod home;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod key;
pub(crate) mod manual;
pub(crate) mod open;
pub(crate) mod passphrase;
pub(crate) mod places;
pub(crate) mod post;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod seal;
pub(crate) mod serve;
pub(crate) mod settle;
pub(crate) mod ship;
pub(crate) mod signals;
pub(crate) mod store;
pub(crate) mod upload;
pub(crate) mod verify;
pub(crate) mod why;
