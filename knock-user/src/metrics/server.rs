//! Serves the page of metrics over HTTP.
//!
//! The daemon has capabilities, so little is accepted: `GET` and `HEAD` of two paths, a bounded number
//! of connections, one request each, and a bounded time for it. A page is made at most once a second,
//! anyone who asks for it; nothing in a request reaches the daemon.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore},
    time::{Instant, sleep, timeout},
};

use super::format::Format;
use crate::{
    control::{self, Asker, CommandFailure, Reply},
    host::{listener::Listening, os_error},
};

/// The most connections at a time; further ones wait.
const CONNECTIONS_MAX: usize = 16;
/// How long the head of a request may take to arrive.
const HEAD_PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may last: the default time limit of Prometheus for a scrape.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of the head of a request; the smallest bound that hyper accepts.
const HEAD_MAX: usize = 8 << 10;
/// The most headers of a request.
const HEADERS_MAX: usize = 32;
/// For how long a page is served again.
const FRESH: Duration = Duration::from_secs(1);
/// The pause after a connection that could not be accepted, as when descriptors are exhausted.
const RETRY: Duration = Duration::from_millis(100);
/// The path of the page.
const PATH: &str = "/metrics";

/// The server, which may be off.
#[derive(Debug)]
pub struct MetricsServer {
    pages: Arc<Pages>,
    listening: Listening,
}

/// Makes pages, and keeps the last one.
#[derive(Debug)]
struct Pages {
    asker: Asker,
    last: Mutex<Option<(Instant, Format, Bytes)>>,
}

impl MetricsServer {
    /// Creates a server that is off; it asks for pages as a client of the control socket does.
    pub fn new(asker: Asker) -> Self {
        let pages = Pages {
            asker,
            last: Mutex::new(None),
        };
        Self {
            pages: Arc::new(pages),
            listening: Listening::default(),
        }
    }

    /// Listens at another address, or stops. If it can't listen, it logs a warning and keeps trying.
    /// It must be called inside a tokio runtime.
    pub fn listen(&mut self, at: Option<SocketAddr>) {
        let pages = Arc::clone(&self.pages);
        self.listening
            .move_to("[metrics]", at, |listener| serve(listener, pages));
    }
}

async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed, so this is never an error.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    let _late = timeout(PATIENCE, converse(stream, &pages)).await;
                    drop(turn);
                });
            }
            Err(error) => {
                tracing::debug!(
                    "accepting a connection for metrics: {}",
                    os_error::plain(&error)
                );
                sleep(RETRY).await;
            }
        }
    }
}

/// Serves one request. An error concerns only this connection.
async fn converse(stream: TcpStream, pages: &Pages) {
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(respond(&request, pages).await) });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .keep_alive(false)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection for metrics ended: {error}");
    }
}

async fn respond(request: &Request<Incoming>, pages: &Pages) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, header("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        PATH => {}
        "/" => {
            return text(
                StatusCode::OK,
                "the metrics of knock-user are at /metrics\n",
            );
        }
        _ => return text(StatusCode::NOT_FOUND, "there is only /metrics\n"),
    }
    let accept = request.headers().get_all(ACCEPT).into_iter();
    let accept: Vec<_> = accept.filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    match pages.page(format, Instant::now()).await {
        Ok(page) => {
            let mut response = Response::new(Full::new(page));
            let kind = header(format.content_type());
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n")),
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    let kind = header("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

const fn header(value: &'static str) -> hyper::header::HeaderValue {
    hyper::header::HeaderValue::from_static(value)
}

impl Pages {
    /// Returns the page; others that ask meanwhile wait for it.
    async fn page(&self, format: Format, now: Instant) -> Result<Bytes, String> {
        let mut last = self.last.lock().await;
        if let Some((at, of, page)) = &*last
            && *of == format
            && now.saturating_duration_since(*at) < FRESH
        {
            return Ok(page.clone());
        }
        let page = match self.asker.ask(request(format)).await {
            Reply::Done(done) => page(done)?,
            Reply::Failed(CommandFailure { message, .. }) => return Err(message),
        };
        *last = Some((now, format, page.clone()));
        Ok(page)
    }
}

/// Returns the request of the command `metrics`.
fn request(format: Format) -> control::Request {
    let format = serde_json::to_value(format).unwrap_or_default();
    control::Request {
        command: "metrics".to_owned(),
        fields: Map::from_iter([("format".to_owned(), format)]),
    }
}

fn page(mut done: Value) -> Result<Bytes, String> {
    match done.pointer_mut("/metrics/text").map(Value::take) {
        Some(Value::String(text)) => Ok(text.into()),
        Some(_) | None => Err("the answer has no metrics".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Serves what a function answers, and sends one request to it.
    async fn exchange(request: &str, reply: fn() -> Reply) -> String {
        let (asker, mut calls) = Asker::for_tests();
        let answering = tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                call.answer(reply());
            }
        });
        let pages = Pages {
            asker,
            last: Mutex::new(None),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            converse(stream, &pages).await;
        });
        let mut stream = TcpStream::connect(at).await.unwrap();
        // The server may refuse before it has read all.
        let _refused = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        serving.await.unwrap();
        answering.abort();
        String::from_utf8(answer).unwrap()
    }

    fn done() -> Reply {
        Reply::Done(
            serde_json::json!({ "metrics": { "format": "classic", "text": "knock_up 1\n" } }),
        )
    }

    #[tokio::test]
    async fn each_request_has_its_response() {
        let long = format!(
            "GET /metrics HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
            "x".repeat(HEAD_MAX)
        );
        let many = format!(
            "GET /metrics HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(HEADERS_MAX + 1)
        );
        for (name, request, status, part) in [
            (
                "the page",
                "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n",
                "200",
                "\r\n\r\nknock_up 1\n",
            ),
            (
                "with a query",
                "GET /metrics?x=1 HTTP/1.1\r\nHost: h\r\n\r\n",
                "200",
                "knock_up 1\n",
            ),
            (
                "HTTP 1.0",
                "GET /metrics HTTP/1.0\r\n\r\n",
                "200",
                "knock_up 1\n",
            ),
            (
                "its type",
                "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n",
                "200",
                "content-type: text/plain; version=0.0.4; charset=utf-8\r\n",
            ),
            (
                "OpenMetrics",
                "GET /metrics HTTP/1.1\r\nHost: h\r\nAccept: application/openmetrics-text\r\n\r\n",
                "200",
                "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n",
            ),
            (
                "the head alone",
                "HEAD /metrics HTTP/1.1\r\nHost: h\r\n\r\n",
                "200",
                "content-length: 11\r\n",
            ),
            (
                "the root",
                "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
                "200",
                "/metrics",
            ),
            (
                "another path",
                "GET /debug HTTP/1.1\r\nHost: h\r\n\r\n",
                "404",
                "/metrics",
            ),
            (
                "a path that leads back",
                "GET /x/../metrics HTTP/1.1\r\nHost: h\r\n\r\n",
                "404",
                "",
            ),
            (
                "another method",
                "POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
                "405",
                "allow: GET, HEAD\r\n",
            ),
            (
                "a tunnel",
                "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
                "405",
                "",
            ),
            ("no HTTP", "\x16\x03\x01\x02 hello\r\n\r\n", "400", ""),
            ("a long head", &long, "431", ""),
            ("many headers", &many, "431", ""),
        ] {
            let answer = exchange(request, done).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} "))
                    || answer.starts_with(&format!("HTTP/1.0 {status} ")),
                "{name}: {answer}"
            );
            assert!(answer.contains(part), "{name}: {answer}");
        }
        let head = exchange("HEAD /metrics HTTP/1.1\r\nHost: h\r\n\r\n", done).await;
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn a_daemon_that_can_not_answer_is_a_failed_scrape() {
        let request = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";
        for (name, reply, expected) in [
            (
                "it failed",
                (|| Reply::failed("no maps")) as fn() -> Reply,
                "no maps\n",
            ),
            (
                "another answer",
                || Reply::Done(Value::Null),
                "the answer has no metrics\n",
            ),
        ] {
            let answer = exchange(request, reply).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{name}: {answer}");
            assert!(answer.ends_with(expected), "{name}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_page_is_made_once_a_second() {
        let (asker, mut calls) = Asker::for_tests();
        let counting = tokio::spawn(async move {
            let mut count = 0;
            while let Some(call) = calls.recv().await {
                count += 1;
                call.answer(done());
            }
            count
        });
        let pages = Arc::new(Pages {
            asker,
            last: Mutex::new(None),
        });
        let now = Instant::now();
        for (at_ms, format) in [
            (0, Format::Classic),
            (999, Format::Classic),
            (1_000, Format::Classic),
            (1_001, Format::OpenMetrics),
            (1_999, Format::OpenMetrics),
        ] {
            let at = now + Duration::from_millis(at_ms);
            pages.page(format, at).await.unwrap();
        }
        drop(pages);
        assert_eq!(counting.await.unwrap(), 3);
    }
}
