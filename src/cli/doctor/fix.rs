//! Fixes of problems: lines for the configurations of proxies.

use Proxy::{Any, Caddy, Cloudflare, Haproxy, Nginx};

use crate::cli::http::Head;

/// A program whose configuration fixes a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    Nginx,
    Haproxy,
    Caddy,
    Cloudflare,
    /// No proxy but the server or the machine. Its lines are printed for every proxy.
    Any,
}

/// A problem with a known fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fix {
    InvalidCertificate,
    IncompleteChain,
    OldTls,
    RenewalOverdue,
    Unreachable,
    NotSpeak,
    Redirected,
    DirectPortClosed,
    HighLatency,
    ClockSkew,
    NoKeepAlive,
    MissingHeader,
    DuplicateHeader,
    PreflightBlocked,
    ErrorsReplaced,
    ResponsesCached,
    BodyTooLarge,
    HeadTooLarge,
    DelayedResponse,
    CloseNotForwarded,
    UpgradeBlocked,
    StreamBuffered,
    StreamCut,
    RateLimited,
    NotAdmin,
    LogDown,
    LogSlow,
    OnlyNode,
}

/// Lines that fix a problem. Several lines for the same proxy form one fix.
const LINES: &[(Fix, Proxy, &str)] = &[
    (
        Fix::InvalidCertificate,
        Any,
        "get a certificate for this name: certbot renew, or Caddy, which gets its own",
    ),
    (Fix::IncompleteChain, Nginx, "ssl_certificate /etc/letsencrypt/live/NAME/fullchain.pem;"),
    (Fix::IncompleteChain, Haproxy, "bind :443 ssl crt FILE, with the whole chain in the file"),
    (
        Fix::IncompleteChain,
        Any,
        "for an authority of your own: SSL_CERT_FILE=ca.pem speak doctor URL",
    ),
    (Fix::OldTls, Nginx, "ssl_protocols TLSv1.2 TLSv1.3;"),
    (Fix::OldTls, Haproxy, "ssl-min-ver TLSv1.2, on the bind line"),
    (
        Fix::RenewalOverdue,
        Any,
        "run the renewal by hand and read its errors; Speak itself takes a new file at SIGHUP",
    ),
    (Fix::Unreachable, Nginx, "proxy_pass http://127.0.0.1:8080;"),
    (Fix::Unreachable, Haproxy, "server speak 127.0.0.1:8080"),
    (Fix::Unreachable, Caddy, "reverse_proxy 127.0.0.1:8080"),
    (Fix::Unreachable, Any, "check that Speak is running there: systemctl status speak"),
    (Fix::NotSpeak, Nginx, "location / { proxy_pass http://127.0.0.1:8080; }"),
    (Fix::NotSpeak, Caddy, "reverse_proxy 127.0.0.1:8080"),
    (Fix::NotSpeak, Any, "or the network wants a login first: open any page in a browser"),
    (Fix::Redirected, Any, "use that address for speak doctor and in your pages"),
    (
        Fix::DirectPortClosed,
        Any,
        "speak --listen 8080 --listen 7732, and open port 7732 in the firewall: ufw allow 7732/tcp",
    ),
    (
        Fix::DirectPortClosed,
        Cloudflare,
        "it does not forward port 7732: use another name for it that is \"DNS only\"",
    ),
    (Fix::DirectPortClosed, Any, "or skip this check: --direct-port 0"),
    (
        Fix::HighLatency,
        Any,
        "move the server nearer to its users, or reduce the load on it and on the proxy",
    ),
    (Fix::ClockSkew, Any, "set the clocks of both machines: timedatectl set-ntp true"),
    (Fix::NoKeepAlive, Nginx, "keepalive_timeout 75s;"),
    (Fix::NoKeepAlive, Haproxy, "option http-keep-alive, and no option httpclose"),
    (Fix::NoKeepAlive, Caddy, "servers { timeouts { idle 5m } } in the global options"),
    (Fix::MissingHeader, Nginx, "remove proxy_hide_header, and add_header of that name"),
    (Fix::MissingHeader, Haproxy, "remove http-response del-header"),
    (Fix::MissingHeader, Caddy, "remove header -NAME and header_down -NAME"),
    (Fix::MissingHeader, Cloudflare, "Rules, Transform Rules: delete the rule that removes it"),
    (
        Fix::DuplicateHeader,
        Nginx,
        "remove add_header Access-Control-Allow-Origin: Speak sends it (--allow-origin)",
    ),
    (
        Fix::DuplicateHeader,
        Haproxy,
        "remove http-response add-header Access-Control-Allow-Origin: Speak sends it",
    ),
    (Fix::DuplicateHeader, Caddy, "remove header Access-Control-Allow-Origin: Speak sends it"),
    (
        Fix::PreflightBlocked,
        Nginx,
        "remove the rule that answers OPTIONS: limit_except, if ($request_method = OPTIONS)",
    ),
    (Fix::PreflightBlocked, Haproxy, "remove http-request deny if METH_OPTIONS"),
    (Fix::ErrorsReplaced, Nginx, "proxy_intercept_errors off;"),
    (Fix::ErrorsReplaced, Haproxy, "remove http-response return, and errorfile for 4xx"),
    (Fix::ErrorsReplaced, Caddy, "remove handle_response"),
    (Fix::ResponsesCached, Nginx, "proxy_cache off;"),
    (Fix::ResponsesCached, Haproxy, "remove http-request cache-use and http-response cache-store"),
    (Fix::ResponsesCached, Cloudflare, "Caching, Cache Rules: Bypass cache for this name"),
    (Fix::BodyTooLarge, Nginx, "client_max_body_size 1m;"),
    (Fix::BodyTooLarge, Haproxy, "remove http-request deny if { req.body_size gt ... }"),
    (Fix::BodyTooLarge, Caddy, "request_body { max_size 1MB }"),
    (Fix::HeadTooLarge, Nginx, "large_client_header_buffers 4 16k;"),
    (Fix::HeadTooLarge, Haproxy, "tune.bufsize 32768"),
    (Fix::HeadTooLarge, Any, "and speak --max-head 16k or more"),
    (Fix::DelayedResponse, Nginx, "proxy_buffering off;"),
    (
        Fix::DelayedResponse,
        Any,
        "or something else delays responses: try the direct port, speak doctor http://HOST:7732",
    ),
    (Fix::CloseNotForwarded, Nginx, "proxy_ignore_client_abort off;"),
    (Fix::CloseNotForwarded, Haproxy, "option abortonclose, in defaults or a listen section"),
    (Fix::CloseNotForwarded, Caddy, "remove flush_interval -1"),
    (
        Fix::CloseNotForwarded,
        Any,
        "pages that can load http://HOST:7732/image-test use that port and are not affected",
    ),
    (Fix::UpgradeBlocked, Nginx, "proxy_http_version 1.1;"),
    (Fix::UpgradeBlocked, Nginx, "proxy_set_header Upgrade $http_upgrade;"),
    (
        Fix::UpgradeBlocked,
        Nginx,
        "proxy_set_header Connection $connection_upgrade; (with a map of $http_upgrade)",
    ),
    (Fix::UpgradeBlocked, Haproxy, "timeout tunnel 1h, and no http-request del-header Upgrade"),
    (Fix::UpgradeBlocked, Cloudflare, "Network: WebSockets on"),
    (Fix::StreamBuffered, Nginx, "proxy_buffering off;"),
    (Fix::StreamBuffered, Nginx, "gzip off;"),
    (Fix::StreamBuffered, Haproxy, "remove option http-buffer-request, and compression"),
    (Fix::StreamBuffered, Caddy, "remove encode for text/event-stream"),
    (Fix::StreamCut, Nginx, "proxy_read_timeout 60s;"),
    (Fix::StreamCut, Haproxy, "timeout server 60s, and timeout client 60s"),
    (
        Fix::StreamCut,
        Caddy,
        "transport http { read_timeout 60s }, and no response_header_timeout below that",
    ),
    (Fix::StreamCut, Any, "or set speak --poll-timeout and --heartbeat below that time"),
    (
        Fix::RateLimited,
        Any,
        "behind a proxy all clients have its address: speak --trust-proxy ADDRESS-OF-THE-PROXY",
    ),
    (Fix::RateLimited, Nginx, "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"),
    (Fix::RateLimited, Haproxy, "option forwardfor"),
    (
        Fix::NotAdmin,
        Any,
        "start Speak with --admin-listen 127.0.0.1:9100, and use http://127.0.0.1:9100 here",
    ),
    (
        Fix::LogDown,
        Any,
        "check that Redis responds: redis-cli -u URL ping, info memory, info clients",
    ),
    (
        Fix::LogDown,
        Any,
        "with rediss://, speak --check and the node's options checks the certificate",
    ),
    (Fix::LogDown, Any, "with a journal, check its disk: df -h DIR"),
    (Fix::LogDown, Any, "the log of Speak has the reason: journalctl -u speak"),
    (
        Fix::LogSlow,
        Any,
        "check the way to Redis, and its disk: redis-cli -u URL --latency, slowlog get",
    ),
    (Fix::LogSlow, Any, "check whether this process has a core of its own: speak_loop_seconds"),
    (
        Fix::OnlyNode,
        Any,
        "start another node with the same --cluster: without one, a restart interrupts all clients",
    ),
];

impl Proxy {
    /// Recognizes the proxy by the head of a response. `HAProxy` does not name itself.
    pub fn detect(head: &Head) -> Option<Self> {
        let names = || head.get_all("server").chain(head.get_all("via"));
        let is = |name: &str| names().any(|field| field.to_ascii_lowercase().contains(name));
        if head.field("cf-ray").is_some() || is("cloudflare") {
            Some(Cloudflare)
        } else if is("nginx") || is("openresty") {
            Some(Nginx)
        } else if is("caddy") {
            Some(Caddy)
        } else {
            None
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Nginx => "nginx: ",
            Haproxy => "HAProxy: ",
            Caddy => "Caddy: ",
            Cloudflare => "Cloudflare: ",
            Any => "",
        }
    }
}

impl Fix {
    /// Returns the lines for `proxy`. If the proxy is not known, or has no line, returns all lines.
    pub fn for_proxy(self, proxy: Option<Proxy>) -> Vec<String> {
        let lines = || LINES.iter().filter(|(fix, ..)| *fix == self);
        let is_chosen = |line: &Proxy| *line == Any || proxy.is_none_or(|proxy| proxy == *line);
        let has_line = lines().any(|(_, line, _)| is_chosen(line));
        lines()
            .filter(|(_, line, _)| is_chosen(line) || !has_line)
            .map(|(_, proxy, line)| format!("{}{line}", proxy.prefix()))
            .collect()
    }
}
