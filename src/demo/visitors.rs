//! A few visitors who come back again and again, so that the dashboard of the demo has something to show. They ask for what the
//! page itself polls, which the sample servers do not count.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How many there are.
pub(super) const VISITORS: u64 = 6;
/// Between two requests of one.
const PAUSE: Duration = Duration::from_millis(900);
/// After so many requests a visitor forgets its cookies and is a new client.
const STAYS: u32 = 60;

/// One visitor, until the task is dropped. The proxy may not be there yet, or not any more.
pub(super) async fn visit(proxy: String, number: u64) {
    tokio::time::sleep(PAUSE / 6 * u32::try_from(number).unwrap_or(0)).await;
    loop {
        let mut cookie = None;
        for _ in 0..STAYS {
            tokio::time::sleep(PAUSE).await;
            if let Ok(Some(given)) = request(&proxy, cookie.as_deref()).await {
                cookie = Some(given);
            }
        }
    }
}

/// A request; the session's cookie, if the response sets one.
async fn request(proxy: &str, cookie: Option<&str>) -> io::Result<Option<String>> {
    let mut connection = TcpStream::connect(proxy).await?;
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    let head =
        format!("GET /demo/state HTTP/1.1\r\nHost: {proxy}\r\nUser-Agent: demo\r\n{cookie}Connection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    let mut response = String::new();
    connection.take(64 << 10).read_to_string(&mut response).await?;
    let set = response.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    let mut cookies = set.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).map(|(_, value)| value.trim());
    Ok(cookies.find_map(|value| value.split(';').next()).map(str::to_owned))
}
