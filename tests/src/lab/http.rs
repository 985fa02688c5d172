//! As much of HTTP as a look at the daemon takes.

use std::io::{self, Read, Write};

use serde_json::Value;

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its number.
    pub status: u16,
    /// Names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// All that follows the headers.
    pub body: String,
}

impl Answer {
    /// The value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("not JSON: {e}: {self:?}"))
    }

    /// The message of a refusal, which must have Docker's form: nothing but a message, and a line feed at its end.
    pub fn message(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert!(self.status >= 400 && self.body.ends_with("}\n"), "{self:?}");
        let body = self.json();
        let fields = body.as_object().unwrap_or_else(|| panic!("no object: {self:?}"));
        assert_eq!(fields.len(), 1, "{self:?}");
        fields["message"].as_str().unwrap_or_else(|| panic!("no message: {self:?}")).to_owned()
    }
}

/// Sends one request, with a body if it is not empty, and reads the answer to its end.
pub fn send(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: netd\r\n").into_bytes();
    for (name, value) in headers {
        request.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if !body.is_empty() || method == "POST" {
        request.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
    }
    request.extend(b"\r\n");
    request.extend(body);
    // A server that refuses a body may answer and hang up before it has all of it.
    let sent = stream.write_all(&request);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer)
        && answer.is_empty()
    {
        return Err(sent.err().unwrap_or(error));
    }
    read(&String::from_utf8_lossy(&answer))
}

/// Reads an answer that is there as a whole.
pub fn read(answer: &str) -> io::Result<Answer> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(malformed)?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.map(header).collect::<Option<_>>().ok_or_else(malformed)?;
    Ok(Answer { status, headers, body: body.to_owned() })
}

/// `GET path`: status and body.
pub fn get(stream: impl Read + Write, path: &str) -> io::Result<(u16, String)> {
    send(stream, "GET", path, &[], &[]).map(|answer| (answer.status, answer.body))
}
