//! What mends what: the lines of the proxies' configurations.

use crate::cli::http::Head;

/// Whose configuration is to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    Nginx,
    Haproxy,
    Caddy,
    Cloudflare,
    /// Not a proxy's, but the server's, or the machine's: told whatever stands between.
    Any,
}

/// What is to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mend {
    Certificate,
    Chain,
    OldTls,
    Nobody,
    Stranger,
    Moved,
    DirectDoor,
    Distance,
    Clock,
    KeepAlive,
    LostHeader,
    DoubleHeader,
    Preflight,
    Errors,
    Cache,
    Body,
    Head,
    Delay,
    Closing,
    Upgrade,
    Buffering,
    Cut,
    Rate,
}

impl Proxy {
    /// Who answered, as far as the head of an answer tells. `HAProxy` says nothing of itself.
    pub fn of(head: &Head) -> Option<Self> {
        let names = || head.get_all("server").chain(head.get_all("via"));
        let is = |name: &str| names().any(|field| field.to_ascii_lowercase().contains(name));
        if head.field("cf-ray").is_some() || is("cloudflare") {
            Some(Self::Cloudflare)
        } else if is("nginx") || is("openresty") {
            Some(Self::Nginx)
        } else if is("caddy") {
            Some(Self::Caddy)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx: ",
            Self::Haproxy => "HAProxy: ",
            Self::Caddy => "Caddy: ",
            Self::Cloudflare => "Cloudflare: ",
            Self::Any => "",
        }
    }
}

impl Mend {
    /// For `proxy`, or for each where it is not known. A proxy that is known, but not for this, gets the advice for all.
    pub fn lines(self, proxy: Option<Proxy>) -> Vec<String> {
        let all = self.all();
        let is_for = |line: &&(Proxy, &str)| {
            line.0 == Proxy::Any || proxy.is_none_or(|proxy| proxy == line.0)
        };
        let mut chosen: Vec<_> = all.iter().filter(is_for).collect();
        if chosen.is_empty() {
            chosen = all.iter().collect();
        }
        chosen.into_iter().map(|(proxy, line)| format!("{}{line}", proxy.name())).collect()
    }

    #[expect(clippy::too_many_lines, reason = "a table")]
    fn all(self) -> &'static [(Proxy, &'static str)] {
        use Proxy::{Any, Caddy, Cloudflare, Haproxy, Nginx};
        match self {
            Self::Certificate => &[(
                Any,
                "get a certificate for this name (certbot renew, or Caddy, which gets its own)",
            )],
            Self::Chain => &[
                (Nginx, "ssl_certificate /etc/letsencrypt/live/NAME/fullchain.pem;"),
                (Haproxy, "bind :443 ssl crt FILE, with the whole chain in the file"),
                (Any, "your own authority: SSL_CERT_FILE=ca.pem speak doctor URL"),
            ],
            Self::OldTls => &[
                (Nginx, "ssl_protocols TLSv1.2 TLSv1.3;"),
                (Haproxy, "ssl-min-ver TLSv1.2, on the bind line"),
            ],
            Self::Nobody => &[
                (Nginx, "proxy_pass http://127.0.0.1:8080;"),
                (Haproxy, "server speak 127.0.0.1:8080"),
                (Caddy, "reverse_proxy 127.0.0.1:8080"),
                (Any, "and is it running there? systemctl status speak"),
            ],
            Self::Stranger => &[
                (Nginx, "location / { proxy_pass http://127.0.0.1:8080; }"),
                (Caddy, "reverse_proxy 127.0.0.1:8080"),
                (Any, "or the network asks you to log in first: open any page in a browser"),
            ],
            Self::Moved => &[(Any, "give that address to speak doctor, and to your pages")],
            Self::DirectDoor => &[
                (
                    Any,
                    "speak --listen 8080 --listen 7732, and port 7732 open in the firewall (ufw allow 7732/tcp)",
                ),
                (Cloudflare, "it passes no port 7732: a name of its own that is \"DNS only\" does"),
                (Any, "or do without: --direct-port 0"),
            ],
            Self::Distance => {
                &[(Any, "a server nearer to its users, or less load on it or on the proxy")]
            }
            Self::Clock => &[(Any, "set the clocks of both machines: timedatectl set-ntp true")],
            Self::KeepAlive => &[
                (Nginx, "keepalive_timeout 75s;"),
                (Haproxy, "option http-keep-alive, and no option httpclose"),
                (Caddy, "servers { timeouts { idle 5m } } among the global options"),
            ],
            Self::LostHeader => &[
                (Nginx, "take out proxy_hide_header, and add_header of that name"),
                (Haproxy, "take out http-response del-header"),
                (Caddy, "take out header -NAME and header_down -NAME"),
                (Cloudflare, "Rules, Transform Rules: take out the one that removes it"),
            ],
            Self::DoubleHeader => &[
                (
                    Nginx,
                    "take out add_header Access-Control-Allow-Origin: Speak sends it (--allow-origin)",
                ),
                (
                    Haproxy,
                    "take out http-response add-header Access-Control-Allow-Origin: Speak sends it",
                ),
                (Caddy, "take out header Access-Control-Allow-Origin: Speak sends it"),
            ],
            Self::Preflight => &[
                (
                    Nginx,
                    "take out what answers OPTIONS itself: limit_except, if ($request_method = OPTIONS)",
                ),
                (Haproxy, "take out http-request deny if METH_OPTIONS"),
            ],
            Self::Errors => &[
                (Nginx, "proxy_intercept_errors off;"),
                (Haproxy, "take out http-response return, and errorfile for 4xx"),
                (Caddy, "take out handle_response"),
            ],
            Self::Cache => &[
                (Nginx, "proxy_cache off;"),
                (Haproxy, "take out http-request cache-use and http-response cache-store"),
                (Cloudflare, "Caching, Cache Rules: Bypass cache for this name"),
            ],
            Self::Body => &[
                (Nginx, "client_max_body_size 1m;"),
                (Haproxy, "take out http-request deny if { req.body_size gt ... }"),
                (Caddy, "request_body { max_size 1MB }"),
            ],
            Self::Head => &[
                (Nginx, "large_client_header_buffers 4 16k;"),
                (Haproxy, "tune.bufsize 32768"),
                (Any, "and speak --max-head 16k or more"),
            ],
            Self::Delay => &[
                (Nginx, "proxy_buffering off;"),
                (
                    Any,
                    "or something between holds answers back: try the direct door, speak doctor http://HOST:7732",
                ),
            ],
            Self::Closing => &[
                (Nginx, "proxy_ignore_client_abort off;"),
                (Haproxy, "option abortonclose, in defaults or a listen section"),
                (Caddy, "take out flush_interval -1"),
                (
                    Any,
                    "pages that can load http://HOST:7732/image-test use that door and are not concerned",
                ),
            ],
            Self::Upgrade => &[
                (Nginx, "proxy_http_version 1.1;"),
                (Nginx, "proxy_set_header Upgrade $http_upgrade;"),
                (
                    Nginx,
                    "proxy_set_header Connection $connection_upgrade; (with a map of $http_upgrade)",
                ),
                (Haproxy, "timeout tunnel 1h, and no http-request del-header Upgrade"),
                (Cloudflare, "Network: WebSockets on"),
            ],
            Self::Buffering => &[
                (Nginx, "proxy_buffering off;"),
                (Nginx, "gzip off;"),
                (Haproxy, "take out option http-buffer-request, and compression"),
                (Caddy, "take out encode for text/event-stream"),
            ],
            Self::Cut => &[
                (Nginx, "proxy_read_timeout 60s;"),
                (Haproxy, "timeout server 60s, and timeout client 60s"),
                (
                    Caddy,
                    "transport http { read_timeout 60s }, and no response_header_timeout below that",
                ),
                (Any, "or ask for less: speak --poll-timeout and --heartbeat below that time"),
            ],
            Self::Rate => &[
                (
                    Any,
                    "behind a proxy all have its address: speak --trust-proxy ADDRESS-OF-THE-PROXY",
                ),
                (Nginx, "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"),
                (Haproxy, "option forwardfor"),
            ],
        }
    }
}
