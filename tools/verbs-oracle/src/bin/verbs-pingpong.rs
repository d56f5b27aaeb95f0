//! Round trips and streams over bare verbs, through Roceway's own bindings.
//!
//! Prints lines of `name key=value ...` on standard output: `hello` with all that was chosen,
//! `pingpong` or `stream` with the figures (the asking end only), `drained` at the end. An error
//! goes to standard error with exit code 1.

use clap::Parser;
use roceway_verbs_oracle::connect::{self, Held};
use roceway_verbs_oracle::options::{By, Calls, Options, Test, Transport, Wait};
use roceway_verbs_oracle::shape::Like;
use roceway_verbs_oracle::{Failure, rounds, said, setup, stream};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("verbs-pingpong: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    if options.test == Test::Stream && options.transport == Transport::Ud {
        return Err(said("a stream of datagrams would lose messages: use rc"));
    }
    if options.like != Like::Bare && (options.test, options.calls) != (Test::Pingpong, Calls::Lists)
    {
        return Err(said("--like is for round trips by lists"));
    }
    let chosen = setup::choose(options)?;
    let mtu = chosen.attributes.active_mtu.map_or(0, |mtu| mtu.bytes());
    if options.transport == Transport::Ud && options.size > u32::from(mtu) {
        return Err(said(format!("a datagram has at most {mtu} bytes here")));
    }
    let device = chosen.context.device().name().to_owned();
    let (port, gid) = (chosen.port, chosen.gid);
    let end = setup::prepare(chosen, options)?;
    println!(
        "hello device={device} port={port} gid={} index={} kind={} mtu={mtu} queue_pair={}",
        gid.gid.ip(),
        gid.index,
        gid.kind.to_string().replace(' ', "-"),
        end.pair.number()
    );
    let (mut ready, held) = connect::connect(end, options)?;
    measure(&mut ready, options)?;
    finish(held, options)?;
    println!("drained flushed={}", ready.drain()?);
    Ok(())
}

/// The asking end's figures; the answering end prints none.
fn measure(ready: &mut setup::Ready, options: &Options) -> Result<(), Failure> {
    let count = u64::from(options.count);
    let asks = options.connect.is_some();
    let load = options.load();
    match (options.test, asks) {
        (Test::Pingpong, false) => rounds::answer(ready, count, &load),
        (Test::Stream, false) => stream::receive(ready, count),
        (Test::Pingpong, true) => {
            let mut samples = rounds::ask(ready, count, &load)?;
            println!("pingpong {} {}", manner(ready, options), samples.summary());
            Ok(())
        }
        (Test::Stream, true) => {
            let time = stream::send(ready, count)?;
            let bytes = count * u64::from(options.size);
            let nanoseconds = time.as_nanos().max(1);
            let rate = u128::from(bytes) * 1_000_000_000 / nanoseconds;
            println!(
                "stream {} bytes={bytes} time_ns={nanoseconds} bytes_per_second={rate}",
                manner(ready, options)
            );
            Ok(())
        }
    }
}

fn manner(ready: &setup::Ready, options: &Options) -> String {
    let transport = match options.transport {
        Transport::Rc => "rc",
        Transport::Ud => "ud",
    };
    let wait = match options.wait {
        Wait::Poll => "poll",
        Wait::Event => "event",
    };
    let by = match options.by {
        By::Tcp => "tcp",
        By::Cm => "cm",
    };
    let calls = match options.calls {
        Calls::Lists => "lists",
        Calls::Extended => "extended",
    };
    format!(
        "transport={transport} wait={wait} by={by} calls={calls} srq={} inline={} size={} count={} \
         empty={} events={}",
        options.srq,
        ready.is_inline(),
        options.size,
        options.count,
        ready.end.base.waiter.empty,
        ready.end.base.waiter.events
    )
}

/// Both ends are through before either takes its queue pair down.
fn finish(held: Held, options: &Options) -> Result<(), Failure> {
    match held {
        Held::Wire(mut wire) => wire.meet("done"),
        Held::Identifiers(_channel, identifiers) => {
            // The listener stands first where there is one, the connection last.
            match (options.transport, identifiers.last()) {
                (Transport::Rc, Some(connection)) if options.connect.is_some() => {
                    Ok(connection.disconnect()?)
                }
                _ => Ok(()),
            }
        }
    }
}
