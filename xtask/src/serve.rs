//! A small static file server: right MIME types, nothing cached, one thread per connection, this machine only.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, bail};

const DEFAULT_PORT: u16 = 8080;

/// Serves `folder` at `/` until the process is ended. Without a port, the first free one from 8080 on.
pub fn serve(folder: &Path, port: Option<u16>) -> Result<()> {
    if !folder.join("index.html").is_file() {
        bail!("{} has no index.html: run `cargo xtask build` first", folder.display());
    }
    let listener = match port {
        Some(port) => listen(port).with_context(|| format!("port {port} cannot be used"))?,
        None => (DEFAULT_PORT..DEFAULT_PORT + 20)
            .find_map(|port| listen(port).ok())
            .context("no free port from 8080 to 8099; give one with --port")?,
    };
    println!("http://localhost:{}/", listener.local_addr()?.port());
    accept(&listener, Site { folder: folder.to_path_buf(), prefix: "/".into() });
    Ok(())
}

/// Serves `folder` under `prefix` (which starts and ends with `/`) on a free port, in the background, for the tests.
/// Returns the address of the folder.
pub fn serve_in_background(folder: &Path, prefix: &str) -> Result<String> {
    let listener = listen(0)?;
    let address = format!("http://localhost:{}{prefix}", listener.local_addr()?.port());
    let site = Site { folder: folder.to_path_buf(), prefix: prefix.into() };
    thread::spawn(move || accept(&listener, site));
    Ok(address)
}

struct Site {
    folder: PathBuf,
    prefix: String,
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

fn accept(listener: &TcpListener, site: Site) {
    let site = Arc::new(site);
    for stream in listener.incoming().flatten() {
        let site = Arc::clone(&site);
        // A client that hangs up in the middle of an answer is its own affair.
        thread::spawn(move || drop(answer(stream, &site)));
    }
}

fn answer(stream: TcpStream, site: &Site) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut close = false;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            let header = header.to_ascii_lowercase();
            close |= header.starts_with("connection:") && header.contains("close");
        }
        let mut words = request.split_whitespace();
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let reply = match method {
            "GET" | "HEAD" => site.reply(target),
            _ => Reply::text("405 Method Not Allowed", "only GET and HEAD"),
        };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Access-Control-Allow-Origin: *\r\n{}\r\n",
            reply.status,
            reply.mime,
            reply.body.len(),
            reply.location.map(|to| format!("Location: {to}\r\n")).unwrap_or_default(),
        );
        writer.write_all(head.as_bytes())?;
        if method != "HEAD" {
            writer.write_all(&reply.body)?;
        }
        writer.flush()?;
        if close {
            return Ok(());
        }
    }
}

struct Reply {
    status: &'static str,
    mime: &'static str,
    location: Option<String>,
    body: Vec<u8>,
}

impl Reply {
    fn text(status: &'static str, text: &str) -> Self {
        Self { status, mime: "text/plain; charset=utf-8", location: None, body: text.as_bytes().to_vec() }
    }
}

impl Site {
    fn reply(&self, target: &str) -> Reply {
        let path = target.split(['?', '#']).next().unwrap_or("");
        let missing = || Reply::text("404 Not Found", &format!("{path} is not here"));
        let Some(relative) = path.strip_prefix(&self.prefix).and_then(relative) else {
            return missing();
        };
        let mut file = self.folder.join(relative);
        if file.is_dir() {
            if !path.ends_with('/') {
                // Relative addresses in the page only work below a trailing slash.
                let mut reply = Reply::text("301 Moved Permanently", "");
                reply.location = Some(format!("{path}/"));
                return reply;
            }
            file.push("index.html");
        }
        match fs::read(&file) {
            Ok(body) => Reply { status: "200 OK", mime: mime(&file), location: None, body },
            Err(_) => missing(),
        }
    }
}

/// The file path that a request path below the prefix means; `None` if it would leave the folder.
fn relative(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    let path = String::from_utf8(bytes).ok()?;
    let safe = path.split('/').all(|part| part != ".." && !part.contains(['\\', '\0', ':']));
    (safe && !path.starts_with('/')).then(|| PathBuf::from(path))
}

/// `application/wasm` and `text/javascript` matter: browsers refuse to compile or to import anything else.
fn mime(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()).unwrap_or("") {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "wasm" => "application/wasm",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" | "md" | "wgsl" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_stays_inside_the_folder() {
        assert_eq!(relative("a/b%20c.js"), Some(PathBuf::from("a/b c.js")));
        assert_eq!(relative(""), Some(PathBuf::new()));
        for outside in ["../secret", "a/../../secret", "%2e%2e/secret", "/etc/passwd", "a\\..\\b", "%zz", "%"] {
            assert_eq!(relative(outside), None, "{outside}");
        }
    }

    #[test]
    fn site_answers_below_its_prefix_only() {
        let folder = std::env::temp_dir().join(format!("xtask-serve-{}", std::process::id()));
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("index.html"), "home").unwrap();
        fs::write(folder.join("lab_bg.wasm"), "wasm").unwrap();
        let site = Site { folder: folder.clone(), prefix: "/some/where/".into() };
        let home = site.reply("/some/where/?v=1");
        assert_eq!((home.status, home.mime, home.body), ("200 OK", "text/html; charset=utf-8", b"home".to_vec()));
        assert_eq!(site.reply("/some/where/lab_bg.wasm").mime, "application/wasm");
        assert_eq!(site.reply("/some/where/sub").location.as_deref(), Some("/some/where/sub/"));
        assert_eq!(site.reply("/index.html").status, "404 Not Found");
        assert_eq!(site.reply("/some/where/none.js").status, "404 Not Found");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn server_forbids_caching() {
        let folder = std::env::temp_dir().join(format!("xtask-cache-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("index.html"), "home").unwrap();
        let address = serve_in_background(&folder, "/p/").unwrap();
        let host = address.trim_start_matches("http://").split('/').next().unwrap();
        let mut stream = TcpStream::connect(host.replace("localhost", "127.0.0.1")).unwrap();
        stream.write_all(b"GET /p/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("Cache-Control: no-store\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nhome"), "{text}");
        fs::remove_dir_all(folder).unwrap();
    }
}
