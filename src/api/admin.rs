//! The admin door: what an operator's own tools ask. Nothing of it reaches a channel.

use super::Api;
use super::error::Error;
use crate::http::{Method, Persistence, Request, ResponseHead};

/// What Prometheus calls its text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const JSON_TYPE: &str = "application/json";

const ALLOW: &str = "GET, HEAD";

impl Api {
    /// Answers a request that came by the admin door; `metrics` writes that page. Tells whether the client stays.
    ///
    /// No page of the web may read what is told here, so there is neither CORS nor JSONP.
    pub fn handle_admin(
        &mut self,
        request: &Request<'_>,
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
            ("/health", _) => {
                body.extend_from_slice(b"{\"status\":\"ok\"}");
                Ok(JSON_TYPE)
            }
            _ => Err(Error::NotFound),
        };
        let persistence = self.writer.persistence(request.persistence);
        let (status, content_type, more) = match result {
            Ok(content_type) => (200, content_type, "".into()),
            Err(error) => {
                super::json::push_error(&mut body, error);
                (error.name_and_status().1, JSON_TYPE, error.extra_headers())
            }
        };
        // The path is one of those two where it was answered.
        log::debug!("admin {} {status}", if status == 200 { request.path } else { "none" });
        let head = ResponseHead {
            status,
            content_type: Some(content_type),
            allow_origin: None,
            varies_by_origin: false,
            cache_control: "no-store",
            date: self.writer.date(),
            extra_fields: &more,
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
