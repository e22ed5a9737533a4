//! Facts of the network interfaces.

use std::net::IpAddr;

use lockstep_apis::v1alpha::Value;
use sysinfo::Networks;

use crate::host::Host;

/// Every address that others may reach the machine by, IPv4 first: none of the loopback, none that is link-local.
pub(super) fn addresses(_host: &Host) -> Option<Value> {
    let networks = Networks::new_with_refreshed_list().ok()?;
    let mut found: Vec<IpAddr> = networks
        .values()
        .flat_map(|network| network.ip_networks().iter().map(|address| address.addr))
        .filter(|address| is_reachable(*address))
        .collect();
    found.sort_unstable();
    found.dedup();
    Some(Value::list(found.into_iter().map(|address| Value::text(address.to_string()))))
}

/// Hardware address and addresses with prefix length, by interface.
pub(super) fn interfaces(_host: &Host) -> Option<Value> {
    let networks = Networks::new_with_refreshed_list().ok()?;
    Some(Value::map(networks.iter().map(|(name, network)| {
        let mut addresses: Vec<String> =
            network.ip_networks().iter().map(|address| format!("{}/{}", address.addr, address.prefix)).collect();
        addresses.sort_unstable();
        let addresses = Value::list(addresses.into_iter().map(Value::text));
        let entries = [("mac", Value::text(network.mac_address().to_string())), ("addresses", addresses)];
        (name.to_string_lossy().into_owned(), Value::map(entries))
    })))
}

fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_link_local_are_no_addresses_to_reach_a_machine_by() {
        for bad in ["127.0.0.1", "169.254.1.1", "::1", "fe80::1"] {
            assert!(!is_reachable(bad.parse().unwrap()), "{bad}");
        }
        assert!(is_reachable("192.0.2.1".parse().unwrap()) && is_reachable("2001:db8::1".parse().unwrap()));
    }
}
