//! `http.request` against servers of this test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lockstep_apis::v1alpha::Value;
use lockstep_modules::Outcome;

use crate::stage::{Stage, assert_changed, assert_failed, assert_ok, list, text};

/// Answers each connection by what `answer` makes of the request's head and body. Ends with the test's process.
pub(crate) fn serve(answer: impl Fn(&str, &[u8]) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            talk(&mut stream.unwrap(), &answer);
        }
    });
    address
}

fn talk(stream: &mut (impl Read + Write), answer: &impl Fn(&str, &[u8]) -> Vec<u8>) {
    let mut reader = BufReader::new(&mut *stream);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).unwrap_or(0) > 2 {
        head.push_str(&line);
        line.clear();
    }
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if reader.read_exact(&mut body).is_ok() && !head.is_empty() {
        let _ = stream.write_all(&answer(&head, &body));
        let _ = stream.flush();
    }
}

pub(crate) fn plain(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).into()
}

#[test]
fn an_answer_is_a_result() {
    let address = serve(|head, _| {
        assert!(
            head.starts_with("GET /health?x=1 HTTP/1.1\r\n") && head.to_lowercase().contains("x-token: t"),
            "{head}"
        );
        plain("200 OK", "content-type: application/json; charset=utf-8\r\nX-A: 1\r\nx-a: 2\r\n", "{\"up\":[true]}")
    });
    let mut stage = Stage::new();
    stage.check = true;
    let url = format!("http://{address}/health?x=1#part");
    let done = stage.perform("http.request", [("url", url.into()), ("headers", Value::map([("X-Token", "t".into())]))]);
    assert_ok(&done);
    assert_eq!(done.result.get("status").and_then(Value::as_integer), Some(200));
    assert_eq!(text(&done, "body"), "{\"up\":[true]}");
    let up = done.result.get("json").and_then(|json| json.get("up")?.as_list()?.first()?.as_bool());
    assert_eq!(up, Some(true));
    assert_eq!(done.result.get("headers").unwrap().get("x-a").and_then(Value::as_text), Some("1, 2"));
}

#[test]
fn what_may_change_is_not_asked_in_a_check_and_is_changed_else() {
    let address = serve(|head, body| {
        let is_right = head.starts_with("POST ") && head.contains("application/json") && body == b"{\"a\":1}";
        plain(if is_right { "201 Created" } else { "400 Bad" }, "", "")
    });
    let mut stage = Stage::new();
    let asked = || {
        let json = Value::map([("a", Value::from(1))]);
        [("url", format!("http://{address}/").into()), ("method", "POST".into()), ("json", json)]
    };
    assert_changed(&stage.perform("http.request", asked()));
    stage.check = true;
    assert_eq!(stage.perform("http.request", asked()).outcome, Outcome::Unpredicted);
}

#[test]
fn a_status_that_is_not_expected_is_a_failure_that_tells_all() {
    let address = serve(|_, _| plain("503 Service Unavailable", "", "warming up"));
    let mut stage = Stage::new();
    let url = format!("http://{address}/");
    let done = stage.perform("http.request", [("url", url.as_str().into())]);
    assert_failed(&done, "UnexpectedStatus");
    assert_eq!((done.result.get("status").and_then(Value::as_integer), text(&done, "body")), (Some(503), "warming up"));
    let expected = Value::list([Value::from(200), Value::from(503)]);
    assert_ok(&stage.perform("http.request", [("url", url.into()), ("expectedStatus", expected)]));
}

#[test]
fn a_body_is_bounded_and_may_be_no_text() {
    let address = serve(|_, _| [b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n".as_slice(), b"\xff\0\x01"].concat());
    let mut stage = Stage::new();
    let url = || ("url", Value::from(format!("http://{address}/")));
    assert_failed(&stage.perform("http.request", [url(), ("maxBodyBytes", 2.into())]), "BodyTooLong");
    assert_eq!(text(&stage.perform("http.request", [url()]), "bodyBase64"), "/wAB");
}

#[test]
fn redirects_are_followed_on_the_same_scheme_only_and_end() {
    let address = serve(|head, _| match head {
        head if head.starts_with("GET /start") => plain("302 Found", "location: /end\r\n", ""),
        head if head.starts_with("GET /end") => plain("200 OK", "", "arrived"),
        head if head.starts_with("GET /out") => plain("302 Found", "location: file:///etc/passwd\r\n", ""),
        _ => plain("302 Found", "location: /loop\r\n", ""),
    });
    let mut stage = Stage::new();
    let mut ask = |path: &str| stage.perform("http.request", [("url", format!("http://{address}{path}").into())]);
    assert_eq!(text(&ask("/start"), "body"), "arrived");
    assert_failed(&ask("/out"), "RedirectRefused");
    assert_failed(&ask("/loop"), "RedirectRefused");
}

#[test]
fn who_does_not_answer_is_not_waited_for_longer_than_asked() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let mut stage = Stage::new();
    let done = stage.perform("http.request", [("url", url.as_str().into()), ("timeout", "50ms".into())]);
    assert_failed(&done, "TimedOut");
    stage.cancel.throw();
    assert_eq!(stage.perform("http.request", [("url", url.into())]).outcome, Outcome::Cancelled);
}

#[test]
fn who_is_not_there_or_speaks_no_http_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let garbage = serve(|_, _| b"SSH-2.0-OpenSSH\r\n".to_vec());
    let mut stage = Stage::new();
    let mut ask = |url: String| stage.perform("http.request", [("url", url.into())]);
    assert_failed(&ask(format!("http://{closed}/")), "ConnectFailed");
    assert_failed(&ask(format!("http://{garbage}/")), "BadAnswer");
    assert_failed(&ask("http://nowhere.invalid/".into()), "NameNotResolved");
    assert_failed(&ask("ftp://a/".into()), "InvalidParameters");
    stage.check = true;
    let done = stage.perform("http.request", [("url", format!("http://{closed}/").into())]);
    assert_eq!(done.outcome, Outcome::Unpredicted, "an earlier task may start it: {}", done.message);
}

#[test]
fn parameters_that_no_request_can_have_are_refused() {
    let mut stage = Stage::new();
    let url = || ("url", Value::from("http://127.0.0.1:1/"));
    for (name, value) in [
        ("headers", Value::map([("a b", "c".into())])),
        ("headers", Value::map([("a", "b\r\nc: d".into())])),
        ("headers", Value::map([("Host", "other".into())])),
        ("method", "get".into()),
        ("keyFile", "/key".into()),
        ("expectedStatus", list(&["ok"])),
    ] {
        assert_failed(&stage.perform("http.request", [url(), (name, value)]), "InvalidParameters");
    }
}

#[test]
fn certificates_are_checked_on_both_sides() {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let leaf = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate, key)
    };
    let address = serve_tls(&ca_certificate, leaf("localhost"));
    let (client, client_key) = leaf("client");
    let mut stage = Stage::new();
    stage.write("ca.pem", &ca_certificate.pem());
    stage.write("client.pem", &client.pem());
    stage.write("client.key", &client_key.serialize_pem());
    let port = address.rsplit(':').next().unwrap();
    let file = |stage: &Stage, name: &str| Value::from(stage.path(name));
    let url = |host: &str| Value::from(format!("https://{host}:{port}/"));
    let (ca, certificate, key) = (file(&stage, "ca.pem"), file(&stage, "client.pem"), file(&stage, "client.key"));
    let full = [("caFile", ca.clone()), ("certificateFile", certificate), ("keyFile", key)];
    let [ca_file, certificate_file, key_file] = full.clone();
    let done = stage.perform("http.request", [("url", url("localhost")), ca_file, certificate_file, key_file]);
    assert_ok(&done);
    assert_eq!(text(&done, "body"), "hello");
    assert_failed(&stage.perform("http.request", [("url", url("localhost"))]), "TLSFailed");
    let [ca_file, certificate_file, key_file] = full;
    let wrong_name = [("url", url("127.0.0.1")), ca_file, certificate_file, key_file];
    assert_failed(&stage.perform("http.request", wrong_name), "TLSFailed");
    assert_eq!(stage.perform("http.request", [("url", url("localhost")), ("caFile", ca)]).outcome, Outcome::Failed);
    let missing = ("caFile", file(&stage, "none.pem"));
    assert_failed(&stage.perform("http.request", [("url", url("localhost")), missing]), "InvalidCertificate");
}

/// A server that wants a certificate of this authority.
fn serve_tls(ca: &rcgen::Certificate, (certificate, key): (rcgen::Certificate, rcgen::KeyPair)) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream: TcpStream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            talk(&mut rustls::StreamOwned::new(connection, stream), &|_: &str, _: &[u8]| plain("200 OK", "", "hello"));
        }
    });
    address
}

/// A server over TLS that wants no certificate; its address, and the authority to trust.
pub(crate) fn serve_tls_plainly(answer: impl Fn(&str, &[u8]) -> Vec<u8> + Send + 'static) -> (String, String) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()).into();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream: TcpStream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            talk(&mut stream, &answer);
            // As other servers do; without it clients take the end for a cut.
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (format!("localhost:{port}"), certified.cert.pem())
}
