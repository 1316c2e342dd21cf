//! A small parent that holds the listening socket, so that a restart, an upgrade or a crash of the server refuses no
//! connection.
//!
//! The server is its child. While there is none, connections wait in the backlog of the socket, which the
//! parent keeps open. There is never more than one child, since two would want one disk log. The parent touches
//! neither Kafka nor disk nor a byte of a webhook, so that little in it can fail.
//!
//! SIGHUP starts a new child, by the name that the parent was started by, so that it may be another version. First
//! that version checks its settings; then the old child ends in order. SIGTERM and SIGINT end both. The parent
//! ends the child by closing a pipe, the child's stdin, not with a signal: so a child ends in order when its parent
//! is killed, and a service manager that signals both of them does no harm.

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use anyhow::{Context, bail, ensure};
use command_fds::{CommandFdExt, FdMapping};
use runtime::lifecycle::Stop;
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::config::Webhooks;
use crate::notify;
use http_edge::listener::listener;

/// Tells the child that it is one: the names of the descriptors in systemd's protocol.
const NAMES: &str = "LISTEN_FDNAMES";
const NAME: &str = "hookledger-hold";
/// The first descriptor that is handed over in systemd's protocol.
const FIRST_FD: i32 = 3;
/// The time for an orderly end on top of notice and idle timeout: half a minute for requests in flight, ten seconds for
/// Kafka's acknowledgements, and a margin.
const END_WAIT_MAX: Duration = Duration::from_secs(60);
/// The time for the next version to check its settings.
const TRY_WAIT_MAX: Duration = Duration::from_secs(10);
/// Between an unrequested end of a child and the next one: at first, and at most.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// A child that ran for this long was healthy: its successor begins with the shortest wait.
const WELL_AFTER: Duration = Duration::from_secs(10);

pub fn is_supervised() -> bool {
    env::var_os(NAMES).is_some_and(|names| names == NAME)
}

/// In a child: requests the stop when the parent closes the pipe, or is gone.
pub fn obey(stop: &Stop) -> io::Result<()> {
    if is_supervised() {
        let stop = stop.clone();
        thread::Builder::new().name("parent".into()).spawn(move || {
            // No byte ever comes; an error is an end as well.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            if !stop.requested() {
                tracing::info!("the parent requests the end: stopping");
                stop.request();
            }
        })?;
    }
    Ok(())
}

/// In a parent: holds the socket and runs this very program as a child, until a stop is requested.
pub fn run(webhooks: &Webhooks) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut operator = Operator::listen().context("listen for signals")?;
        let supervisor = Supervisor::new(webhooks)?;
        tracing::info!(address = %supervisor.listener.local_addr()?, "holding the socket; SIGHUP restarts the server behind it");
        // From now on no connection is refused.
        notify::ready();
        supervisor.supervise(&mut operator).await
    })
}

struct Supervisor {
    listener: TcpListener,
    program: OsString,
    arguments: Vec<OsString>,
    end_wait_max: Duration,
}

/// Ends when `word` is dropped.
struct Server {
    child: Child,
    word: ChildStdin,
}

enum After {
    Next,
    Nothing,
    /// It ended by itself, or did not even start.
    Failure(String),
}

impl Supervisor {
    fn new(webhooks: &Webhooks) -> anyhow::Result<Self> {
        let address = webhooks.listen;
        let listener = listener(address).with_context(|| format!("listen on {address} for webhooks"))?;
        let mut words = env::args_os();
        // By our name, not its target: a link may point to another version by now.
        let program = words.next().map_or_else(|| env::current_exe().map(Into::into), Ok)?;
        let end_wait_max = webhooks.stop_notice + webhooks.limits.idle_timeout + END_WAIT_MAX;
        Ok(Self { listener, program, arguments: words.collect(), end_wait_max })
    }

    async fn supervise(&self, operator: &mut Operator) -> anyhow::Result<()> {
        let mut back_off = BACK_OFF_MIN;
        loop {
            let started = Instant::now();
            let reason = match self.serve(operator).await? {
                After::Next => continue,
                After::Nothing => return Ok(()),
                After::Failure(reason) => reason,
            };
            if started.elapsed() >= WELL_AFTER {
                back_off = BACK_OFF_MIN;
            }
            tracing::error!(
                reason,
                "the server failed ({reason}); connections wait for the next one, which starts in {back_off:?}"
            );
            tokio::select! {
                () = sleep(back_off) => back_off = (back_off * 2).min(BACK_OFF_MAX),
                wish = operator.next() => match wish {
                    Wish::Restart => back_off = BACK_OFF_MIN,
                    Wish::End => return Ok(()),
                },
            }
        }
    }

    async fn serve(&self, operator: &mut Operator) -> anyhow::Result<After> {
        let mut server = match self.start() {
            Ok(server) => server,
            Err(error) => return Ok(After::Failure(format!("{error:#}"))),
        };
        loop {
            let wish = tokio::select! {
                ended = server.child.wait() => return Ok(After::Failure(ended?.to_string())),
                wish = operator.next() => wish,
            };
            match (wish, self.try_next(wish).await) {
                (Wish::Restart, Err(error)) => tracing::error!("not restarted, the server goes on: {error:#}"),
                (Wish::Restart, Ok(())) | (Wish::End, _) => return self.end(server, wish, operator).await,
            }
        }
    }

    fn start(&self) -> anyhow::Result<Server> {
        let socket = FdMapping { parent_fd: OwnedFd::from(self.listener.try_clone()?), child_fd: FIRST_FD };
        let mut command = process::Command::new(&self.program);
        // Without LISTEN_PID: it is unknown before the child exists, and our listener does not check it.
        command.args(&self.arguments).env("LISTEN_FDS", "1").env(NAMES, NAME).env_remove("LISTEN_PID");
        // systemd knows the parent.
        command.env_remove(notify::SOCKET);
        command.stdin(Stdio::piped()).fd_mappings(vec![socket])?;
        // A group of its own: the Ctrl-C of a terminal is for the parent.
        let started = Command::from(command).process_group(0).spawn();
        let mut child = started.with_context(|| format!("start {}", self.program.display()))?;
        // Taken out, since waiting for a child closes its stdin first.
        let word = child.stdin.take().context("the server has no stdin")?;
        tracing::info!(pid = child.id(), "the server is started");
        Ok(Server { child, word })
    }

    /// Before a restart: whether the next version starts, and accepts the settings.
    async fn try_next(&self, wish: Wish) -> anyhow::Result<()> {
        if wish == Wish::End {
            return Ok(());
        }
        let program = self.program.display();
        let mut trial = Command::new(&self.program);
        trial.args(&self.arguments).arg("--check-config").stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let mut trial = trial.spawn().with_context(|| format!("start {program}"))?;
        let status = timeout(TRY_WAIT_MAX, trial.wait()).await;
        let status = status.with_context(|| format!("{program} --check-config does not end"))??;
        ensure!(status.success(), "{program} --check-config, which reports the error, ended with {status}");
        Ok(())
    }

    /// Ends a server in order, and waits for that: never two at once.
    async fn end(&self, server: Server, mut wish: Wish, operator: &mut Operator) -> anyhow::Result<After> {
        let Server { mut child, word } = server;
        drop(word);
        let mut patience = std::pin::pin!(sleep(self.end_wait_max));
        let status = loop {
            tokio::select! {
                status = child.wait() => break status?,
                () = &mut patience => {
                    let waited = self.end_wait_max;
                    tracing::error!("the server does not end within {waited:?}: it is killed; webhooks that it had not answered are lost");
                    break kill(&mut child).await?;
                }
                more = operator.next() => match (wish, more) {
                    (Wish::Restart, more) => wish = more,
                    (Wish::End, Wish::Restart) => {}
                    (Wish::End, Wish::End) => {
                        tracing::warn!("second request to end: the server is killed");
                        break kill(&mut child).await?;
                    }
                },
            }
        };
        match wish {
            Wish::End if status.success() => Ok(After::Nothing),
            Wish::End => bail!("the server ended with {status}"),
            Wish::Restart => Ok(After::Next),
        }
    }
}

async fn kill(child: &mut Child) -> io::Result<ExitStatus> {
    child.start_kill()?;
    child.wait().await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Restart,
    End,
}

struct Operator {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Operator {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Wish {
        let (name, wish) = tokio::select! {
            _ = self.hangup.recv() => ("SIGHUP", Wish::Restart),
            _ = self.terminate.recv() => ("SIGTERM", Wish::End),
            _ = self.interrupt.recv() => ("SIGINT", Wish::End),
        };
        match wish {
            Wish::Restart => tracing::info!("{name}: a new server takes the place of this one"),
            Wish::End => tracing::info!("{name}: stop in order; a second signal ends the server at once"),
        }
        wish
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far longer than any test takes.
    const LONG: Duration = Duration::from_secs(3600);

    /// Holds a socket for a script in the place of a server.
    fn supervisor(script: &str, end_wait_max: Duration) -> Supervisor {
        Supervisor {
            listener: listener(([127, 0, 0, 1], 0).into()).expect("a free port"),
            program: "sh".into(),
            arguments: ["-c", script, "script"].map(Into::into).to_vec(),
            end_wait_max,
        }
    }

    #[tokio::test]
    async fn a_server_has_the_socket_and_ends_with_the_pipe() {
        let mut operator = Operator::listen().expect("signals");
        let supervisor = supervisor(
            "test -S /dev/fd/3 && test $LISTEN_FDS = 1 && test -z \"$LISTEN_PID\" || exit 1; read -r _; exit 7",
            LONG,
        );
        let server = supervisor.start().expect("a server");
        let ended = supervisor.end(server, Wish::End, &mut operator).await.map(drop).expect_err("it ended with 7");
        assert!(ended.to_string().contains("exit status: 7"), "{ended}");

        let server = supervisor.start().expect("another one");
        let after = supervisor.end(server, Wish::Restart, &mut operator).await.expect("an end");
        assert!(matches!(after, After::Next), "how the old one ended does not keep the next one from its start");
    }

    #[tokio::test]
    async fn a_server_that_does_not_end_is_killed() {
        let mut operator = Operator::listen().expect("signals");
        let supervisor = supervisor("exec sleep 3600", Duration::from_millis(50));
        let server = supervisor.start().expect("a server");
        let pid = server.child.id().expect("a process");
        let after = supervisor.end(server, Wish::Restart, &mut operator).await.expect("an end");
        assert!(matches!(after, After::Next));
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it is gone before the next one starts");
    }

    #[tokio::test]
    async fn what_would_not_start_is_not_tried_on_the_living() {
        let refuses = supervisor("test \"$1\" != --check-config", LONG);
        assert!(refuses.try_next(Wish::Restart).await.is_err());
        let likes = supervisor("test \"$1\" = --check-config", LONG);
        likes.try_next(Wish::Restart).await.expect("settings that it likes");
    }

    #[tokio::test]
    async fn a_server_that_fails_or_cannot_start_is_told_of() {
        let mut operator = Operator::listen().expect("signals");
        let failed = supervisor("exit 3", LONG).serve(&mut operator).await.expect("an end");
        assert!(matches!(failed, After::Failure(reason) if reason.contains("exit status: 3")));
        let missing = Supervisor { program: "/missing/ingress".into(), ..supervisor("", LONG) };
        let failed = missing.serve(&mut operator).await.expect("an end");
        assert!(matches!(failed, After::Failure(reason) if reason.contains("/missing/ingress")));
    }
}
