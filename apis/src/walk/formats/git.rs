//! Where a repository is and what is wanted of it. Whatever is let through here reaches the program git, so only what is
//! plainly a URL or a ref is.

/// Why a text is no repository's URL. The text itself is not shown: it may hold a password.
pub(super) fn url_fault(text: &str) -> Option<&'static str> {
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"'\\<>^`{|}".contains(&b);
    if text.len() > 4096 {
        return Some("is longer than 4,096 bytes");
    }
    if !text.bytes().all(plain) {
        return Some(
            "holds a space, a control character, a quote, or a character beyond ASCII; a host is written as xn--…",
        );
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Some("has no scheme; write ssh://git@host/path, or https://host/path");
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if path.len() < 2 || rest.contains(['?', '#']) {
        return Some("names no repository: a path, without `?` and `#`, follows the host");
    }
    if path.split('/').any(|part| matches!(part, "." | "..")) || path.starts_with("/-") {
        return Some("holds a part `.` or `..`, or a path that begins with `-`");
    }
    let host = match (scheme, authority.split_once('@')) {
        ("file", _) => return (!authority.is_empty()).then_some("names a host; a file is written file:///path"),
        ("https" | "http", Some(_)) => return Some("holds a user name or password; use `username` and `password`"),
        ("ssh", Some((user, host))) => {
            let is_user = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            if user.is_empty() || user.starts_with('-') || !user.bytes().all(is_user) {
                return Some("holds a password, or a user that is no name; keys are given by `sshKey`");
            }
            host
        }
        ("https" | "http" | "ssh", None) => authority,
        _ => return Some("begins with none of `https://`, `ssh://`, `http://`, `file:///`"),
    };
    host_fault(host)
}

fn host_fault(authority: &str) -> Option<&'static str> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Some("has a port that is none");
    }
    let is_address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match is_address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            host.split('.').all(|part| !part.is_empty() && !part.starts_with('-') && part.bytes().all(is_part))
        }
    };
    match is_host {
        false => Some("names no host"),
        // Where clouds keep what a machine may know of itself, credentials among it.
        true if host.starts_with("169.254.") => Some("names a link-local address; no repository is there"),
        true => None,
    }
}

/// Why a text is no branch, tag or commit: git's own rules, and no shorthand that means something else there.
pub(super) fn ref_fault(text: &str) -> Option<&'static str> {
    let is_bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let part_is_bad = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    match text {
        "" => Some("it is empty; leave it out for the default branch"),
        "@" => Some("write HEAD"),
        _ if text.len() > 255 => Some("it is longer than 255 bytes"),
        _ if text.starts_with('-') => Some("it begins with `-`"),
        _ if text.contains("..") || text.contains("@{") => Some("it holds `..` or `@{`; write a branch, tag or commit"),
        _ if text.contains(is_bad) => Some("it holds a space, a control character, or one of ~^:?*[\\"),
        _ if text.ends_with('.') || text.split('/').any(part_is_bad) => {
            Some("a part of it is empty, begins with `.`, or ends with `.` or `.lock`")
        }
        _ if text.len() > 40 && text.bytes().all(|b| b.is_ascii_hexdigit()) => Some("a commit has 40 digits"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_plainly_a_url_is_one() {
        for good in [
            "https://git.example/a/b.git",
            "https://git.example:8443/~ann/b",
            "http://127.0.0.1:8000/b.git",
            "ssh://git@git.example/a.git",
            "ssh://git.example:2222/srv/a",
            "ssh://git@[::1]:22/a",
            "file:///srv/git/a.git",
        ] {
            assert_eq!(url_fault(good), None, "{good}");
        }
        for bad in [
            "",
            "/srv/a.git",
            "-u./x",
            "git@host:a.git",
            "git@h:../..",
            "ext::sh -c id",
            "ext::sh%20-c%20id",
            "ext://sh/x",
            "file://etc/passwd",
            "file:///a/../etc",
            "ssh://-oProxyCommand=x/",
            "ssh://-oProxyCommand=x/a",
            "ssh://-o@host/a",
            "ssh://git:pw@host/a",
            "ssh://host/-a",
            "https://u:p@h/a",
            "https://u@h/a",
            "https://h",
            "https://h/",
            "https://h/a?x",
            "https://h/a\n",
            "https://h:0/a",
            "https://h:x/a",
            "https:///a",
            "https://gіthub.com/a",
            "https://169.254.169.254/a",
            "git://h/a",
        ] {
            assert!(url_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn only_names_and_whole_commits_are_refs() {
        for good in ["main", "v1.2", "refs/heads/a/b", "HEAD", "feature/x-1", &"a".repeat(40), &"0".repeat(40)] {
            assert_eq!(ref_fault(good), None, "{good}");
        }
        for bad in [
            "",
            "@",
            "--upload-pack=x",
            "refs/heads/..",
            "HEAD@{1}",
            "a..b",
            "a b",
            "a:b",
            "a^",
            "a~1",
            "a.lock",
            "/a",
            "a//b",
            ".a",
            "a.",
            "a\n",
            &"a".repeat(41),
        ] {
            assert!(ref_fault(bad).is_some(), "{bad}");
        }
    }
}
