//! Looks whether ports answer and who is connected. Sends nothing.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::{Host, HostError};

/// Where the kernel lists TCP sockets, by version of IP.
const SOCKETS: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

impl Host {
    /// Whether something accepts connections at the port, tried on each address of the name until the time is over.
    pub(crate) fn connects(&self, host: &str, port: u16, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let addresses = (host, port).to_socket_addrs().into_iter().flatten();
        addresses.into_iter().any(|address| {
            let left = until.saturating_duration_since(Instant::now());
            !left.is_zero() && TcpStream::connect_timeout(&address, left).is_ok()
        })
    }

    /// How many connections to this port of the machine are open, from whichever side they are being closed.
    pub(crate) fn connections(&self, port: u16) -> Result<usize, HostError> {
        let mut count = 0;
        for path in SOCKETS {
            match std::fs::read_to_string(path) {
                Ok(table) => count += table.lines().filter(|line| is_open(line, port)).count(),
                // A kernel without IPv6.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(HostError::Failed { operation: "read", path: path.to_owned(), source }),
            }
        }
        Ok(count)
    }
}

/// A line of `/proc/net/tcp` (proc_net_tcp.txt): number, local address and port, the other's, state in hexadecimal.
fn is_open(line: &str, port: u16) -> bool {
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next().and_then(|local| local.rsplit_once(':'));
    let is_ours = local.is_some_and(|(_, found)| u16::from_str_radix(found, 16) == Ok(port));
    // ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: not TIME_WAIT, LISTEN or those being opened.
    is_ours && matches!(fields.nth(1), Some("01" | "04" | "05" | "08" | "09" | "0B"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_connections_to_the_port_count() {
        let line = |port: &str, state: &str| {
            format!("   1: 0100007F:{port} 0100007F:D431 {state} 00000000:00000000 00:00000000 00000000     0")
        };
        assert!(is_open(&line("1F90", "01"), 8080));
        assert!(!is_open(&line("1F90", "0A"), 8080) && !is_open(&line("1F90", "06"), 8080));
        assert!(!is_open(&line("1F91", "01"), 8080));
        assert!(!is_open("  sl  local_address rem_address   st tx_queue", 8080));
    }
}
