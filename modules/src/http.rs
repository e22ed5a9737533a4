//! `http.request`: one request and what was answered. Knows what a book may ask and what an answer means; how it is
//! sent is the host's business.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use lockstep_apis::v1alpha::{HttpRequest, Value};

use crate::action::{Action, Done, Outcome, Scope};
use crate::host::{Answer, Asked, HttpFault, Stop, Stopped, Trust, Unfinished, ask};
use crate::parameters::{decoded, duration};

/// `http.request`.
pub(crate) struct Ask;

/// Longest body that is kept, unless the book says otherwise.
const BODY_BYTES: u64 = 1 << 20;
/// How long an answer may take, unless the book says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Action for Ask {
    fn name(&self) -> &'static str {
        "http.request"
    }

    fn perform(&self, parameters: &Value, scope: &mut Scope<'_>) -> Done {
        decoded(self.name(), parameters).and_then(|wanted| perform(&wanted, scope)).unwrap_or_else(|done| done)
    }
}

fn perform(wanted: &HttpRequest, scope: &mut Scope<'_>) -> Result<Done, Done> {
    let (asked, trust) = read(wanted).map_err(|fault| Done::failed("InvalidParameters", fault))?;
    let only_reads = matches!(asked.method, Method::GET | Method::HEAD);
    if scope.check && !only_reads {
        let message = format!("nobody can tell what {} would do", asked.method);
        return Ok(Done::new(Outcome::Unpredicted, message, []));
    }
    let patience = wanted.timeout.as_ref().map_or(TIMEOUT, duration);
    let patience = scope.timeout.map_or(patience, |timeout| timeout.min(patience));
    let stop = Stop { cancel: scope.cancel, deadline: Some(Instant::now() + patience), grace: scope.grace };
    let failed = |fault: HttpFault| unanswered(fault.reason(), fault);
    let tls = scope.host.tls(&trust).map_err(failed)?;
    let limit = wanted.max_body_bytes.map_or(BODY_BYTES, |bytes| u64::try_from(bytes).unwrap_or(0));
    let mut body = Vec::new();
    let mut sink = |bytes: &[u8]| {
        if (body.len() + bytes.len()) as u64 > limit {
            return Err(HttpFault::TooLong { limit, parameter: "maxBodyBytes" });
        }
        body.extend_from_slice(bytes);
        Ok(())
    };
    match scope.host.wait(&stop, ask(&asked, &tls, &mut sink)) {
        Ok(Err(fault @ HttpFault::Connect { .. })) if scope.check => {
            Ok(Done::new(Outcome::Unpredicted, format!("unless an earlier task brings it: {fault}"), []))
        }
        Ok(answer) => Ok(judge(wanted, &answer.map_err(failed)?, body, only_reads)),
        Err(Unfinished::Stopped(Stopped::Cancelled)) => {
            Ok(Done::new(Outcome::Cancelled, "cancelled", [("reason", "Cancelled".into())]))
        }
        Err(Unfinished::Stopped(Stopped::TimedOut)) => {
            let limit = lockstep_apis::duration::format(patience.as_millis() as u64);
            let host = asked.url.authority().map(ToString::to_string).unwrap_or_default();
            Err(unanswered("TimedOut", format!("{host} did not answer within {limit}")))
        }
        Err(Unfinished::Failed(error)) => Err(Done::failed("Failed", error)),
    }
}

/// A failure without an answer. Its result can be judged like one: `until: result.status == 200` waits for a service that
/// does not listen yet.
fn unanswered(reason: &str, message: impl std::fmt::Display) -> Done {
    let result = [
        ("reason", Value::text(reason)),
        ("status", 0.into()),
        ("headers", Value::map(std::iter::empty::<(String, Value)>())),
        ("body", Value::text("")),
        ("bodyBytes", 0.into()),
    ];
    Done::new(Outcome::Failed, format!("{reason}: {message}"), result)
}

/// What is asked, and whom it is believed of.
pub(crate) fn read(wanted: &HttpRequest) -> Result<(Asked, Trust), String> {
    let url: Uri = wanted.url.parse().map_err(|error| format!("url: {error}"))?;
    let method = if wanted.method.is_empty() { "GET" } else { wanted.method.as_str() };
    let method: Method = method.parse().map_err(|error| format!("method: {error}"))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &wanted.headers {
        let wrong = |what: &str| format!("headers: {name:?} {what}");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("is no name of a header"))?;
        if matches!(key.as_str(), "host" | "content-length" | "transfer-encoding" | "connection" | "upgrade") {
            return Err(wrong("is set by the request itself"));
        }
        headers
            .insert(key, HeaderValue::from_str(value).map_err(|_| wrong("holds a line break or control character"))?);
    }
    let body = match (&wanted.body, &wanted.json) {
        (Some(body), _) => body.clone().into_bytes(),
        (None, Some(json)) => {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
            serde_json::Value::from(json).to_string().into_bytes()
        }
        (None, None) => Vec::new(),
    };
    if wanted.certificate_file.is_empty() != wanted.key_file.is_empty() {
        return Err("certificateFile and keyFile go together".to_owned());
    }
    let named = |file: &String| (!file.is_empty()).then(|| file.clone());
    let trust = Trust {
        ca_file: named(&wanted.ca_file),
        identity: named(&wanted.certificate_file).zip(named(&wanted.key_file)),
    };
    Ok((Asked { method, url, headers, body }, trust))
}

fn judge(wanted: &HttpRequest, answer: &Answer, body: Vec<u8>, only_reads: bool) -> Done {
    let status = answer.status.as_u16();
    let is_expected = match wanted.expected_status.as_slice() {
        [] => answer.status.is_success(),
        expected => expected.contains(&i32::from(status)),
    };
    let mut result = result(answer, body);
    if is_expected {
        return Done::new(if only_reads { Outcome::Ok } else { Outcome::Changed }, "", result);
    }
    result.push(("reason", "UnexpectedStatus".into()));
    let host = answer.url.authority().map(ToString::to_string).unwrap_or_default();
    Done::new(Outcome::Failed, format!("UnexpectedStatus: {host} answered {}", answer.status), result)
}

fn result(answer: &Answer, body: Vec<u8>) -> Vec<(&'static str, Value)> {
    let mut headers = std::collections::BTreeMap::<String, String>::new();
    for (name, value) in &answer.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str().to_owned()).and_modify(|all| *all = format!("{all}, {value}")).or_insert(value);
    }
    let kind = headers.get("content-type").map(|kind| kind.split(';').next().unwrap_or_default().trim().to_lowercase());
    let is_json = kind.is_some_and(|kind| kind == "application/json" || kind.ends_with("+json"));
    let mut result = vec![
        ("status", i64::from(answer.status.as_u16()).into()),
        ("headers", Value::map(headers.into_iter().map(|(name, value)| (name, value.into())))),
        ("bodyBytes", i64::try_from(body.len()).unwrap_or(i64::MAX).into()),
    ];
    if is_json && let Ok(json) = serde_json::from_slice::<serde_json::Value>(&body) {
        result.push(("json", json.into()));
    }
    match String::from_utf8(body) {
        Ok(text) => result.push(("body", text.into())),
        Err(error) => {
            result.push(("body", Value::null()));
            result.push(("bodyBase64", STANDARD.encode(error.as_bytes()).into()));
        }
    }
    result
}
