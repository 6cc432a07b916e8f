//! Plain HTTP requests by whole URLs.

use super::*;

/// Answers each request with what it was, until its program sends no more.
async fn mirror(mut socket: TcpStream) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match socket.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
        });
        while buffer.len() < length.unwrap_or(0) {
            socket.read_buf(&mut buffer).await.unwrap();
        }
        let body: Vec<_> = buffer.drain(..length.unwrap_or(0)).collect();
        let local = socket.local_addr().unwrap();
        let said = [format!("at {local}\n{head}").as_bytes(), &body].concat();
        // Chunked: its length is not known.
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nProxy-Connection: close\r\nX-Own: 1\r\n\r\n{:x}\r\n",
            said.len()
        );
        socket.write_all(answer.as_bytes()).await.unwrap();
        socket.write_all(&said).await.unwrap();
        socket.write_all(b"\r\n0\r\n\r\n").await.unwrap();
    }
}

/// Head and body of the next response.
async fn response(socket: &mut TcpStream) -> (String, String) {
    let head = head(socket).await;
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if let Some(length) = lower.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        body.resize(length.parse().unwrap(), 0);
        socket.read_exact(&mut body).await.unwrap();
    } else {
        assert!(lower.contains("transfer-encoding: chunked"), "{head}");
        loop {
            let mut line = String::new();
            while !line.ends_with("\r\n") {
                line.push(char::from(socket.read_u8().await.unwrap()));
            }
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut piece = vec![0; length + 2];
            socket.read_exact(&mut piece).await.unwrap();
            body.extend_from_slice(&piece[..length]);
            if length == 0 {
                break;
            }
        }
    }
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn each_request_on_one_connection_goes_to_its_own_host() {
    bounded(60, async {
        let hosts = [Destination::start(mirror).await, Destination::start(mirror).await];
        let places = hosts.each_ref().map(|host| host.addr.to_string());
        let proxy = Proxy::with(&[&places[0], &places[1]]);
        let mut socket = proxy.connect();
        for turn in 0..6 {
            // Twice in a row to the same.
            let place = &places[turn / 2 % 2];
            let request = format!(
                "POST http://u:p@{place}/path?q={turn} HTTP/1.1\r\nHost: elsewhere\r\nContent-Length: 5\r\n\
                 Proxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\nConnection: x-mine\r\n\
                 X-Mine: 1\r\nX-Kept: 1\r\n\r\nbody{turn}"
            );
            socket.write_all(request.as_bytes()).await.unwrap();
            let (head, body) = response(&mut socket).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert!(head.contains("x-own: 1") && !head.contains("proxy-connection"), "{head}");
            let body = body.to_ascii_lowercase();
            let (at, said) = body.split_once('\n').unwrap();
            assert_eq!(at, format!("at {place}"));
            assert!(said.starts_with(&format!("post /path?q={turn} http/1.1\r\n")), "{said}");
            assert!(said.contains(&format!("host: {place}\r\n")), "{said}");
            assert!(said.contains("x-kept: 1") && said.ends_with(&format!("body{turn}")), "{said}");
            for gone in ["proxy-", "x-mine", "elsewhere", "connection:"] {
                assert!(!said.contains(gone), "{gone}: {said}");
            }
        }
    });
}

#[test]
fn requests_that_come_together_are_answered_in_turn_and_a_refusal_ends_nothing() {
    bounded(60, async {
        let host = Destination::start(mirror).await;
        let place = host.addr.to_string();
        let proxy = Proxy::with(&[&place, "127.0.0.1:1"]);
        let mut socket = proxy.connect();
        let get = |at: &str| format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n");
        let asked = [get(&place), get("127.0.0.1:1"), get("127.0.0.2:80"), get(&place)].concat();
        socket.write_all(asked.as_bytes()).await.unwrap();
        for expected in ["200", "502", "403", "200"] {
            let (head, body) = response(&mut socket).await;
            assert_eq!(&head[9..12], expected, "{head}{body}");
        }
    });
}

#[test]
fn a_program_that_shuts_its_side_down_after_the_request_is_answered() {
    bounded(60, async {
        let host = Destination::start(mirror).await;
        let place = host.addr.to_string();
        let proxy = Proxy::with(&[&place]);
        let mut socket = proxy.connect();
        let get = format!("GET http://{place}/ HTTP/1.1\r\nHost: {place}\r\n\r\n");
        socket.write_all(get.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let (head, body) = response(&mut socket).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("GET / "), "{head}{body}");
        socket.read_to_end(&mut Vec::new()).await.unwrap();
    });
}

#[test]
fn what_is_no_request_to_a_proxy_is_a_bad_one() {
    bounded(60, async {
        let proxy = Proxy::with(&["*:*"]);
        for request in [
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "GET https://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "GET ftp://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "CONNECT 127.0.0.1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "GET http://127.0.0.1/ HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
            "GET nonsense nonsense\r\n\r\n",
        ] {
            let mut socket = proxy.connect();
            socket.write_all(request.as_bytes()).await.unwrap();
            let head = head(&mut socket).await;
            assert!(head.starts_with("HTTP/1.1 400 "), "{request}: {head}");
        }
    });
}

#[test]
fn a_host_that_breaks_off_in_mid_answer_is_no_whole_answer() {
    bounded(60, async {
        let host = Destination::start(|mut socket: TcpStream| async move {
            socket.read_buf(&mut Vec::new()).await.unwrap();
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await.unwrap();
        })
        .await;
        let place = host.addr.to_string();
        let proxy = Proxy::with(&[&place]);
        let mut socket = proxy.connect();
        let get = format!("GET http://{place}/ HTTP/1.1\r\nHost: {place}\r\n\r\n");
        socket.write_all(get.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(!answer.contains("chunked") && !answer.ends_with("0\r\n\r\n"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("content-length: 100"), "{answer}");
    });
}
