//! A request that has been read, and its reply.

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use axum::http::{HeaderValue, Method, Response, StatusCode};
use serde_json::Value;

use super::log::LogKind;

/// A request, read to its end.
pub(super) struct Incoming {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) kind: LogKind,
    /// The request's own ID: ARM's request ID, Entra's trace ID.
    pub(super) id: String,
}

impl Incoming {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn client_request_id(&self) -> Option<&str> {
        self.header("x-ms-client-request-id").or_else(|| self.header("client-request-id"))
    }

    /// Scheme and authority that the client used if the host is one of the emulator's, on any port; otherwise `base_url`.
    pub(super) fn origin(&self, base_url: &str) -> String {
        let (name, port) = self.header("host").and_then(|host| host.split_once(':')).unwrap_or_default();
        match (name.to_ascii_lowercase().as_str(), port.parse::<u16>()) {
            (name @ ("localhost" | "127.0.0.1"), Ok(port)) => format!("https://{name}:{port}"),
            _ => base_url.to_owned(),
        }
    }
}

/// A reply, with details for the log.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) error_code: Option<String>,
    pub(super) principal_id: Option<String>,
    /// The request's body, as the log may show it.
    pub(super) shown: Option<Value>,
}

impl Reply {
    pub(super) fn empty(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            error_code: None,
            principal_id: None,
            shown: None,
        }
    }

    pub(super) fn text(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut reply = Self { body: body.into(), ..Self::empty(status) };
        reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        reply
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json; charset=utf-8", body.to_string())
    }

    /// Adds a header, unless its value is invalid in a header.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    pub(super) fn error_code(mut self, code: impl Into<String>) -> Self {
        self.error_code = Some(code.into());
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
