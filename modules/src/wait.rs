//! `wait.for`: waits until a port answers or a path is there, or no longer. Only looks.

use std::time::{Duration, Instant};

use lockstep_apis::v1alpha::Value;

use crate::action::{Done, Function, Outcome, Scope};
use crate::host::{Host, HostError, rest};
use crate::parameters::Parameters;

/// `wait.for`.
pub(crate) static FOR: Function =
    Function { name: "wait.for", perform: |given, scope| Ok(wait(&Awaited::read(given)?, scope)) };

/// Between two looks, if the book does not say.
const INTERVAL: Duration = Duration::from_secs(1);

/// One try to connect takes no longer.
const CONNECT: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Awaited {
    what: What,
    interval: Duration,
}

#[derive(Debug)]
enum What {
    /// Something listens there, or nothing.
    Port { host: String, port: u16, listens: bool },
    /// No connection to a port of this machine is left.
    Drained { port: u16 },
    /// Something is at the path, or nothing.
    Path { path: String, there: bool },
}

impl Awaited {
    fn read(parameters: &Value) -> Result<Awaited, Done> {
        let mut from = Parameters::new(parameters, None);
        let (path, host) = (from.text("path"), from.text("host"));
        let port = from.integers("port").first().copied();
        let (absent, drained) = (from.flag("absent"), from.flag("drained"));
        let interval = from.text("interval").map(|text| lockstep_apis::duration::parse(&text));
        let interval = match interval {
            Some(Err(error)) => {
                from.fault(format!("interval: {error}"));
                INTERVAL
            }
            Some(Ok(ms)) => Duration::from_millis(ms.max(10)),
            None => INTERVAL,
        };
        let number = port.map(u16::try_from).map(|port| port.ok().filter(|port| *port > 0));
        if number == Some(None) {
            from.fault("port is not from 1 to 65535");
        }
        if drained && (absent || host.is_some() || port.is_none()) {
            from.fault("drained needs a port of this machine, without host and absent");
        }
        let port = number.flatten().unwrap_or_default();
        let what = match path {
            Some(_) if number.is_some() || host.is_some() => {
                from.fault("port and path exclude each other");
                What::Drained { port }
            }
            Some(path) => What::Path { path, there: !absent },
            None if number.is_none() => {
                from.fault("port or path is missing");
                What::Drained { port }
            }
            None if drained => What::Drained { port },
            None => What::Port { host: host.unwrap_or_else(|| "127.0.0.1".to_owned()), port, listens: !absent },
        };
        from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
        Ok(Awaited { what, interval })
    }

    fn is_so(&self, machine: &Host, limit: Duration) -> Result<bool, HostError> {
        match &self.what {
            What::Port { host, port, listens } => Ok(machine.connects(host, *port, limit.min(CONNECT)) == *listens),
            What::Drained { port } => machine.connections(*port).map(|count| count == 0),
            What::Path { path, there } => machine.exists(path).map(|found| found == *there),
        }
    }

    fn describe(&self) -> String {
        match &self.what {
            What::Port { host, port, listens: true } => format!("{host} port {port} to answer"),
            What::Port { host, port, listens: false } => format!("{host} port {port} to be closed"),
            What::Drained { port } => format!("the last connection to port {port} to end"),
            What::Path { path, there: true } => format!("{path} to be there"),
            What::Path { path, there: false } => format!("{path} to be gone"),
        }
    }
}

fn wait(awaited: &Awaited, scope: &mut Scope<'_>) -> Done {
    let begun = Instant::now();
    let left = |begun: Instant| scope.timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(begun.elapsed()));
    loop {
        match awaited.is_so(scope.host, left(begun)) {
            Ok(true) => return Done::new(Outcome::Ok, "", []),
            Ok(false) => {}
            Err(error) => return error.into(),
        }
        if scope.check {
            let message = format!("would wait for {}", awaited.describe());
            return Done::new(Outcome::Unpredicted, message, []);
        }
        let left = left(begun);
        if left.is_zero() {
            return Done::failed("TimedOut", format!("waited for {}", awaited.describe()));
        }
        if rest(scope.cancel, left.min(awaited.interval)) {
            return Done::new(Outcome::Cancelled, format!("cancelled while it waited for {}", awaited.describe()), []);
        }
    }
}
