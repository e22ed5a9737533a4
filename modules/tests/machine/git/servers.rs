//! Servers of repositories: git's own http-backend, and an sshd.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::http::plain;

/// git's own server for HTTP. `wanted` is the authorization that it wants, if any.
pub(super) fn backend(project: PathBuf, wanted: Option<String>) -> impl Fn(&str, &[u8]) -> Vec<u8> + Send + 'static {
    move |head, body| {
        let line = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        if wanted.is_some() && line("authorization") != wanted {
            return plain("401 Unauthorized", "www-authenticate: Basic realm=\"git\"\r\n", "");
        }
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if path.starts_with("/moved") {
            return plain("301 Moved", &format!("location: /web.git{}\r\n", &target[6..]), "");
        }
        let mut child = Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &project)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", method)
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("CONTENT_TYPE", line("content-type").unwrap_or_default())
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", line("content-encoding").unwrap_or_default())
            .env("GIT_PROTOCOL", line("git-protocol").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(body).unwrap();
        let printed = child.wait_with_output().unwrap().stdout;
        let border = printed.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let said = String::from_utf8_lossy(&printed[..border]).into_owned();
        let status = said.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
        let headers: String = said.lines().filter(|l| !l.starts_with("Status")).map(|l| format!("{l}\r\n")).collect();
        let length = printed.len() - border - 4;
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
        [head.as_bytes(), &printed[border + 4..]].concat()
    }
}

/// A real sshd that lets one key in.
pub(super) struct Sshd {
    child: Child,
    pub(super) port: u16,
    dir: TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Sshd {
    pub(super) fn start() -> Sshd {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for name in ["host", "user", "stranger"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(name)]).status();
            assert!(made.unwrap().success());
        }
        fs::copy(path("user.pub"), path("authorized")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\n\
             PasswordAuthentication no\nPermitRootLogin yes\n",
            path("host"),
            path("authorized")
        );
        fs::write(path("config"), config).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &path("config")])
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "{}", fs::read_to_string(path("log")).unwrap());
            std::thread::yield_now();
        }
        Sshd { child, port, dir }
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }
}
