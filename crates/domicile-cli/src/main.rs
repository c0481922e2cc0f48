//! The program `domicile`: it parses, calls the library, and prints.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the program that prints")]

mod arguments;
mod commands;
mod input;
mod output;
mod report;

use std::process::ExitCode;

use clap::Parser;

use arguments::{
    Arguments, AuditCommand, CertCommand, Command, HomeCommand, KeyCommand, PostCommand, StoreCommand,
};
use report::Report;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => return report::wrong_usage(&usage),
    };
    let report = Report::new(&arguments.common);
    // One thread beside this one: keys in use are kept up while this one reads and writes files. A server has one for each
    // processor: that many connections are encrypted at once.
    let threads = match &arguments.command {
        Command::Serve(_) => std::thread::available_parallelism().map_or(1, usize::from),
        _ => 1,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(source) => {
            let error =
                domicile::Error::new(domicile::Code::InputFailed, "the program cannot start").because(source);
            return report.end(Err(error));
        }
    };
    let outcome = runtime.block_on(async {
        let common = &arguments.common;
        let outcome = match &arguments.command {
            Command::Init(init) => commands::init::run(init, &report).await,
            Command::Home(HomeCommand::Choose(choose)) => {
                commands::home::choose(common, choose, &report).await
            }
            Command::Home(HomeCommand::List(list)) => commands::home::list(common, list, &report).await,
            Command::Home(HomeCommand::Places(places)) => {
                commands::places::run(common, places, &report).await
            }
            Command::Seal(seal) => commands::seal::run(common, seal, &report).await,
            Command::Open(open) => commands::open::run(common, open, &report).await,
            Command::Inspect(inspect) => commands::inspect::run(inspect, &report),
            Command::Why(why) => commands::why::run(common, why, &report).await,
            Command::Verify(verify) => commands::verify::run(common, verify, &report).await,
            Command::Recover(recover) => commands::recover::run(common, recover, &report).await,
            Command::Settle(settle) => commands::settle::run(settle, &report),
            Command::Compact(compact) => commands::compact::run(common, compact, &report).await,
            Command::Upload(upload) => commands::upload::run(common, upload, &report).await,
            Command::Key(KeyCommand::List(list)) => commands::key::list(common, list, &report).await,
            Command::Key(KeyCommand::Rotate(rotate)) => commands::key::rotate(common, rotate, &report).await,
            Command::Key(KeyCommand::Ahead(ahead)) => commands::key::ahead(common, ahead, &report).await,
            Command::Key(KeyCommand::Passphrase(passphrase)) => {
                commands::passphrase::run(common, passphrase, &report)
            }
            Command::Key(KeyCommand::Rewrap(rewrap)) => commands::key::rewrap(common, rewrap, &report).await,
            Command::Key(KeyCommand::Erase(erase)) => commands::key::erase(common, erase, &report).await,
            Command::Key(KeyCommand::Expire(expire)) => commands::key::expire(common, expire, &report).await,
            Command::Key(KeyCommand::Hold(hold)) => commands::key::hold(common, hold, &report).await,
            Command::Key(KeyCommand::Shred(shred)) => commands::key::shred(common, shred, &report).await,
            Command::Key(KeyCommand::Unshred(unshred)) => {
                commands::key::unshred(common, unshred, &report).await
            }
            Command::Key(KeyCommand::Replay(replay)) => commands::key::replay(common, replay, &report).await,
            Command::Audit(AuditCommand::List(list)) => commands::audit::list(common, list, &report).await,
            Command::Audit(AuditCommand::Verify(verify)) => {
                commands::audit::verify(common, verify, &report).await
            }
            Command::Audit(AuditCommand::Export(export)) => {
                commands::audit::export(common, export, &report).await
            }
            Command::Audit(AuditCommand::Checkpoint(checkpoint)) => {
                commands::audit::checkpoint(common, checkpoint, &report).await
            }
            Command::Post(PostCommand::Init(init)) => commands::post::init(init, &report),
            Command::Post(PostCommand::Enrol(enrol)) => commands::post::enrol(common, enrol, &report).await,
            Command::Post(PostCommand::Revoke(revoke)) => {
                commands::post::revoke(common, revoke, &report).await
            }
            Command::Post(PostCommand::Export(export)) => {
                commands::post::export(common, export, &report).await
            }
            Command::Post(PostCommand::Seal(seal)) => commands::post::seal(common, seal, &report).await,
            Command::Post(PostCommand::Adopt(adopt)) => commands::post::adopt(common, adopt, &report).await,
            Command::Post(PostCommand::List(list)) => commands::post::list(common, list, &report).await,
            Command::Store(StoreCommand::Migrate(migrate)) => {
                commands::store::migrate(common, migrate, &report).await
            }
            Command::Store(StoreCommand::Check(check)) => {
                commands::store::check(common, check, &report).await
            }
            Command::Store(StoreCommand::Backup(backup)) => {
                commands::store::backup(common, backup, &report).await
            }
            Command::Cert(CertCommand::Authority(authority)) => commands::cert::authority(authority, &report),
            Command::Cert(CertCommand::Issue(issue)) => commands::cert::issue(issue, &report),
            Command::Cert(CertCommand::Revoke(revoke)) => commands::cert::revoke(revoke, &report),
            Command::Cert(CertCommand::Show(show)) => commands::cert::show(show, &report),
            Command::Serve(serve) => commands::serve::run(common, serve, &report).await,
            Command::Ship(ship) => commands::ship::run(common, ship, &report).await,
            Command::Doctor => commands::doctor::run(common, &report).await,
            Command::Completions(completions) => commands::manual::completions(completions, &report),
            Command::Man(man) => commands::manual::man(man),
        };
        report.close().await;
        outcome
    });
    report.end(outcome)
}
