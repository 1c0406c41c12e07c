//! Requests of the admin listener, for tools of the operator.

use super::api::{Api, Handled};
use super::calls::{Call, Context};
use super::cors::CorsGrant;
use super::error::Error;
use super::response::ResponseOptions;
use crate::http::{Method, Persistence, Request, ResponseHead};

/// Type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const JSON_TYPE: &str = "application/json";

const ALLOW: &str = "GET, HEAD";

const NO_CHANGES: Error =
    Error::OverCapacity("the log does not respond, or this node is joining its cluster");

impl Api {
    /// Handles a call of the operator, who moderates every channel. Returns `None` if the request
    /// is no such call: see [`Api::handle_admin`].
    ///
    /// A browser of the operator may show any page, and that page can send requests to the admin
    /// listener. So a call has to be a POST, as no link and no image makes one, and browsers name
    /// the page of each POST in `Origin`: such a call is rejected.
    pub fn handle_operator_call(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Handled> {
        let call = match request.path {
            "/remove" => Call::Remove,
            "/kick" => Call::Kick,
            _ => return None,
        };
        let error = match request.method {
            Method::Post if request.origin.is_none() && !request.is_cross_site => {
                return Some(self.handle_call(context, call, request, out));
            }
            Method::Post => Error::BadOrigin,
            _ => Error::MethodNotAllowed("POST"),
        };
        let options = ResponseOptions {
            cors_grant: CorsGrant::Private,
            persistence: request.persistence,
            is_head: request.method == Method::Head,
            ..ResponseOptions::DEFAULT
        };
        Some(self.respond_error(call.into(), error, options, out))
    }

    /// Responds to another request of the admin listener. `metrics` writes the body of `/metrics`.
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
