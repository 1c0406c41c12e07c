//! Requests of the admin listener, for tools of the operator. They do not reach the hub.

use super::api::Api;
use super::error::Error;
use crate::http::{Method, Persistence, Request, ResponseHead};

/// Type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const JSON_TYPE: &str = "application/json";

const ALLOW: &str = "GET, HEAD";

const NO_CHANGES: Error =
    Error::OverCapacity("the log does not respond, or this node is joining its cluster");

impl Api {
    /// Responds to a request of the admin listener. `metrics` writes the body of `/metrics`.
    /// `takes_changes` is false if the log does not respond, or this process has not joined its
    /// cluster. Returns the persistence of the client.
    ///
    /// No web page may read these responses, so there is neither CORS nor JSONP.
    pub fn handle_admin(
        &mut self,
        request: &Request<'_>,
        takes_changes: bool,
        metrics: impl FnOnce(&Self, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> Persistence {
        let mut body = std::mem::take(&mut self.json);
        body.clear();
        let result = match (request.path, request.method) {
            ("/metrics" | "/health", method) if !matches!(method, Method::Get | Method::Head) => {
                Err(Error::MethodNotAllowed(ALLOW))
            }
            ("/metrics", _) => {
                metrics(self, &mut body);
                Ok(METRICS_TYPE)
            }
            ("/health", _) if !takes_changes => Err(NO_CHANGES),
            ("/health", _) => {
                body.extend_from_slice(b"{\"status\":\"ok\"}");
                Ok(JSON_TYPE)
            }
            _ => Err(Error::NotFound),
        };
        let persistence = self.writer.persistence(request.persistence);
        let (status, content_type, extra_fields) = match result {
            Ok(content_type) => (200, content_type, "".into()),
            Err(error) => {
                super::json::push_error(&mut body, error);
                (error.name_and_status().1, JSON_TYPE, error.extra_headers())
            }
        };
        // Logs only paths that the listener knows.
        log::debug!("admin {} {status}", if status == 200 { request.path } else { "none" });
        let head = ResponseHead {
            status,
            content_type: Some(content_type),
            allow_origin: None,
            varies_by_origin: false,
            is_embeddable: false,
            cache_control: "no-store",
            date: self.writer.date(),
            extra_fields: &extra_fields,
            persistence,
        };
        head.push(out, body.len());
        if request.method != Method::Head {
            out.extend_from_slice(&body);
        }
        self.json = body;
        persistence
    }
}
