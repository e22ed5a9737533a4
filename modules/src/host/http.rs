//! HTTP/1.1 over TCP and TLS: the only maker of clients. Certificates are always checked; nothing here can turn that
//! off. A redirect stays on its scheme. Proxies are not used. Knows no action.

use std::io;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Host, HostError};

/// Where systems keep the authorities that they trust; the first that is there counts.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Redirects that one request follows at most.
const REDIRECTS: usize = 5;

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) url: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// The files with whom to trust, and with what to show who asks. Paths of the machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    /// Instead of the system's authorities.
    pub(crate) ca_file: Option<String>,
    /// Certificate and key.
    pub(crate) identity: Option<(String, String)>,
}

/// What was answered, without the body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Who answered, after redirects.
    pub(crate) url: Uri,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpFault {
    #[error("the name of {authority} could not be looked up: {source}")]
    Name { authority: String, source: io::Error },
    #[error("no connection to {authority}: {source}")]
    Connect { authority: String, source: io::Error },
    #[error("no TLS with {authority}: {source}")]
    Tls { authority: String, source: io::Error },
    #[error("{authority} gave no HTTP answer: {source}")]
    Protocol { authority: String, source: hyper::Error },
    #[error("{file}: {why}")]
    Certificate { file: String, why: String },
    #[error("{authority} redirects to {to}, which is not followed: {why}")]
    Redirect { authority: String, to: String, why: &'static str },
    #[error("the body is longer than {limit} bytes; {parameter} allows more")]
    TooLong { limit: u64, parameter: &'static str },
    #[error(transparent)]
    NotKept(HostError),
    #[error("the URL cannot be asked: {0}")]
    Url(String),
}

impl HttpFault {
    /// The class in one word.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            HttpFault::Name { .. } => "NameNotResolved",
            HttpFault::Connect { .. } => "ConnectFailed",
            HttpFault::Tls { .. } => "TLSFailed",
            HttpFault::Protocol { .. } => "BadAnswer",
            HttpFault::Certificate { .. } => "InvalidCertificate",
            HttpFault::Redirect { .. } => "RedirectRefused",
            HttpFault::TooLong { .. } => "BodyTooLong",
            HttpFault::NotKept(error) => error.reason(),
            HttpFault::Url(_) => "InvalidURL",
        }
    }
}

/// Gets the body as it comes.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), HttpFault>;

impl Host {
    /// What a client trusts and shows.
    pub(crate) fn tls(&self, trust: &Trust) -> Result<Arc<ClientConfig>, HttpFault> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let building = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let building =
            building.expect("invariant: ring has the default versions").with_root_certificates(self.roots(trust)?);
        let mut config = match &trust.identity {
            None => building.with_no_client_auth(),
            Some((certificate_file, key_file)) => {
                let chain = certificates(certificate_file, &self.file(certificate_file)?)?;
                let wrong = |why: String| HttpFault::Certificate { file: key_file.clone(), why };
                let key =
                    PrivateKeyDer::from_pem_slice(&self.file(key_file)?).map_err(|e| wrong(format!("no key: {e}")))?;
                building.with_client_auth_cert(chain, key).map_err(|error| wrong(error.to_string()))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self, trust: &Trust) -> Result<RootCertStore, HttpFault> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &trust.ca_file {
            for certificate in certificates(file, &self.file(file)?)? {
                let wrong =
                    |error: rustls::Error| HttpFault::Certificate { file: file.clone(), why: error.to_string() };
                roots.add(certificate).map_err(wrong)?;
            }
        } else if let Some(bundle) = BUNDLES.iter().find_map(|path| std::fs::read(path).ok()) {
            // A bundle holds what old programs understand; what this one does not is left out.
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).flatten());
        }
        Ok(roots)
    }

    fn file(&self, path: &str) -> Result<Vec<u8>, HttpFault> {
        let missing = || HttpFault::Certificate { file: path.to_owned(), why: "cannot be read".to_owned() };
        self.text(path).map(String::into_bytes).ok_or_else(missing)
    }
}

fn certificates(file: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, HttpFault> {
    let wrong = |why: String| HttpFault::Certificate { file: file.to_owned(), why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("holds no certificate in PEM form".to_owned())) } else { Ok(found) }
}

/// Asks, follows redirects of requests that only read, and hands the last answer's body on.
pub(crate) async fn ask(asked: &Asked, tls: &Arc<ClientConfig>, sink: Sink<'_>) -> Result<Answer, HttpFault> {
    let mut asked = asked.clone();
    let follows = matches!(asked.method, Method::GET | Method::HEAD);
    for _ in 0..=REDIRECTS {
        let (answer, authority) = send(&asked, tls).await?;
        let to = answer.headers().get(LOCATION).filter(|_| follows && answer.status().is_redirection());
        let Some(to) = to.map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned()) else {
            return read(answer, asked.url, &authority, sink).await;
        };
        let next = redirected(&asked.url, &to).map_err(|why| HttpFault::Redirect {
            authority: authority.to_string(),
            to: shown(&to),
            why,
        })?;
        if next.authority() != asked.url.authority() {
            // What a book says to one host, tokens among it, is not for another.
            asked.headers = asked.headers.remove(ACCEPT).map(|kind| (ACCEPT, kind)).into_iter().collect();
        }
        asked.url = next;
    }
    let authority = asked.url.authority().map(Authority::to_string).unwrap_or_default();
    Err(HttpFault::Redirect { authority, to: shown(&asked.url.to_string()), why: "these are too many redirects" })
}

/// A URL without its query, which may hold what is secret.
fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().chars().take(120).collect()
}

/// Where a redirect leads. A path is on the same host; another scheme is refused, `https` for `http` too, as what the
/// book names is what is asked.
fn redirected(from: &Uri, to: &str) -> Result<Uri, &'static str> {
    let to = to.split('#').next().unwrap_or_default();
    let full = match to {
        "" => return Err("it names no place"),
        _ if to.starts_with("//") => return Err("it names no scheme"),
        _ if to.starts_with('/') => {
            format!(
                "{}://{}{to}",
                from.scheme_str().unwrap_or_default(),
                from.authority().map_or("", Authority::as_str)
            )
        }
        _ => to.to_owned(),
    };
    let next: Uri = full.parse().map_err(|_| "it is no URL")?;
    match (next.scheme(), next.authority()) {
        (Some(scheme), Some(authority)) if Some(scheme) == from.scheme() => {
            if authority.as_str().contains('@') {
                Err("it holds a user name")
            } else {
                Ok(next)
            }
        }
        (Some(_), Some(_)) => Err("it has another scheme; ask there if that is meant"),
        _ => Err("it is neither a path nor a full URL"),
    }
}

async fn send(asked: &Asked, tls: &Arc<ClientConfig>) -> Result<(Response<Incoming>, Authority), HttpFault> {
    let authority = asked.url.authority().cloned().ok_or_else(|| HttpFault::Url("it names no host".to_owned()))?;
    let is_tls = asked.url.scheme() == Some(&Scheme::HTTPS);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let named = authority.to_string();
    let stream = connect(&host, port, &named).await?;
    let request = request(asked, &authority)?;
    let answer = if is_tls {
        let name = ServerName::try_from(host).map_err(|error| HttpFault::Url(error.to_string()))?;
        let connected = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        let stream = connected.map_err(|source| HttpFault::Tls { authority: named.clone(), source })?;
        exchange(stream, request).await
    } else {
        exchange(stream, request).await
    };
    Ok((answer.map_err(|source| HttpFault::Protocol { authority: named, source })?, authority))
}

async fn connect(host: &str, port: u16, named: &str) -> Result<TcpStream, HttpFault> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|source| HttpFault::Name { authority: named.to_owned(), source })?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in found {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(HttpFault::Connect { authority: named.to_owned(), source: last })
}

fn request(asked: &Asked, authority: &Authority) -> Result<Request<Full<Bytes>>, HttpFault> {
    let path = asked.url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Full::new(Bytes::from(asked.body.clone())));
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = path.parse().map_err(|error| HttpFault::Url(format!("{error}")))?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|error| HttpFault::Url(error.to_string()))?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("lockstep/", env!("CARGO_PKG_VERSION"))));
    headers.insert(HOST, host);
    headers.extend(asked.headers.clone());
    Ok(request)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the answer is read or dropped; a fault of it is the answer's, too.
    tokio::spawn(connection);
    sender.send_request(request).await
}

async fn read(
    answer: Response<Incoming>,
    url: Uri,
    authority: &Authority,
    sink: Sink<'_>,
) -> Result<Answer, HttpFault> {
    let (head, mut body) = answer.into_parts();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| HttpFault::Protocol { authority: authority.to_string(), source })?;
        if let Some(bytes) = frame.data_ref() {
            sink(bytes)?;
        }
    }
    Ok(Answer { status: head.status, headers: head.headers, url })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_stays_on_its_scheme() {
        let from: Uri = "https://a.example:8443/x?y".parse().unwrap();
        let followed = |to| redirected(&from, to).map(|uri| uri.to_string());
        assert_eq!(followed("/z#part").as_deref(), Ok("https://a.example:8443/z"));
        assert_eq!(followed("https://b.example/").as_deref(), Ok("https://b.example/"));
        for refused in ["http://a.example/", "//b.example/", "file:///etc/passwd", "x", "", "https://u:p@b.example/"] {
            assert!(redirected(&from, refused).is_err(), "{refused}");
        }
        assert!(redirected(&"http://a/".parse().unwrap(), "https://a/").is_err());
    }

    #[test]
    fn a_query_is_not_shown() {
        assert_eq!(shown("http://a/b?token=secret#x"), "http://a/b");
    }
}
