//! Files that the binary contains: the browser client, its element, and the demo chat. `build.rs`
//! compresses them, and only that is kept: few clients do not take gzip.

use std::cell::OnceCell;

use miniz_oxide::inflate;

/// A file that the server serves.
#[derive(Debug)]
pub struct File {
    /// Path of the URL.
    pub path: &'static str,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// Value of `Cache-Control`.
    pub cache_control: &'static str,
    /// Further header fields, as whole lines.
    pub fields: &'static str,
    /// Part of the demo, which `--no-demo` switches off.
    pub is_demo: bool,
    /// Content, compressed by gzip: a file of one member (RFC 1952).
    pub gzip: &'static [u8],
    /// Hash of the content for `ETag`, without quotes.
    pub etag: &'static str,
}

/// Bytes before the compressed data: `build.rs` writes no optional fields (RFC 1952, section 2.3).
const GZIP_HEADER_BYTES: usize = 10;
/// Bytes after it: the checksum, then the length of the content.
const GZIP_TRAILER_BYTES: usize = 8;

impl File {
    /// Returns the length of the content, in bytes.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        let length = self.gzip.last_chunk().expect("build.rs writes a trailer");
        u32::from_le_bytes(*length) as usize
    }

    fn decompress(&self) -> Vec<u8> {
        let data = GZIP_HEADER_BYTES..self.gzip.len() - GZIP_TRAILER_BYTES;
        inflate::decompress_to_vec_with_limit(&self.gzip[data], self.content_bytes())
            .expect("build.rs has compressed it")
    }
}

/// The contents without compression, each decompressed when a client first asks for it: that takes
/// nine times as long as to send it compressed.
#[derive(Debug, Default)]
pub struct Contents([OnceCell<Vec<u8>>; FILES.len()]);

impl Contents {
    /// Returns the content of a file.
    #[must_use]
    pub fn of(&self, file: &File) -> &[u8] {
        let place = FILES.iter().position(|it| it.path == file.path).expect("there are no others");
        self.0[place].get_or_init(|| file.decompress())
    }
}

/// Declares a file of this folder. `build.rs` has written its compressed content and hash.
macro_rules! file {
    ($name:literal at $path:expr, $type:expr, $cache:expr, $fields:expr, is_demo: $demo:expr) => {
        File {
            path: $path,
            content_type: $type,
            cache_control: $cache,
            fields: $fields,
            is_demo: $demo,
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
            etag: include_str!(concat!(env!("OUT_DIR"), "/", $name, ".tag")),
        }
    };
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// For the demo: its files must be of one version, so a browser revalidates them at every use.
const NO_CACHE: &str = "no-cache";

/// For the client: pages have a new version within an hour, and never wait for its download.
const CACHE_1H: &str = "public, max-age=3600, stale-while-revalidate=86400";

const FILES: [File; 7] = [
    file!("index.html" at "/", HTML, NO_CACHE, CSP, is_demo: true),
    file!("demo.js" at "/demo.js", SCRIPT, NO_CACHE, "", is_demo: true),
    file!("demo.css" at "/demo.css", STYLE, NO_CACHE, "", is_demo: true),
    file!("speak.js" at "/speak.js", SCRIPT, CACHE_1H, "", is_demo: false),
    file!("speak-chat.js" at "/speak-chat.js", SCRIPT, CACHE_1H, "", is_demo: false),
    file!("speak.mjs" at "/speak.mjs", SCRIPT, CACHE_1H, "", is_demo: false),
    file!("speak.d.ts" at "/speak.d.ts", TEXT, CACHE_1H, "", is_demo: false),
];

/// Header fields of the demo page. It may load nothing from other servers except from port 7732,
/// the direct listener, and no address with a channel's name is sent as a referrer.
const CSP: &str = "Content-Security-Policy: default-src 'none'; \
    script-src 'self'; style-src 'self'; img-src data:; \
    connect-src 'self' *:7732 ws://*:7732; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'self'\r\n\
    Referrer-Policy: no-referrer\r\n";

/// Transparent GIF of one pixel. A page that can load it can reach the listener.
pub const PIXEL: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0\
    ,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

/// Returns the file with this path. Without the demo, its files do not exist.
#[must_use]
pub fn file(path: &str, has_demo: bool) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path && (has_demo || !file.is_demo))
}
