//! Whom to ask for what is not a network's own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_net::{
    NetError,
    runtime::TokioRuntimeProvider,
    tcp::TcpClientStream,
    udp::UdpClientStream,
    xfer::{DnsHandle as _, FirstAnswer as _, Protocol},
};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message, ResponseCode};

use super::share::{Asker, Places};
use crate::link;

/// The port of name servers (RFC 1035 section 4.2).
const PORT: u16 = 53;
/// How long one server may take, how many are tried, and how many questions may be under way: Docker's numbers, but for all of the host
/// together.
const TIMEOUT: Duration = Duration::from_secs(4);
const SERVERS: usize = 3;
const QUESTIONS: usize = 1024;

/// The servers outside.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    /// Those that were configured; those of the system if there are none.
    configured: Arc<[IpAddr]>,
    questions: Arc<Places>,
}

impl Upstream {
    pub(super) fn new(configured: &[IpAddr]) -> Self {
        Self { configured: configured.into(), questions: Places::new(QUESTIONS) }
    }

    /// Whom it would ask now, the first first. Read anew each time: the system's resolvers change with its networks.
    pub(super) fn servers(&self) -> Vec<IpAddr> {
        let mut servers =
            if self.configured.is_empty() { link::nameservers() } else { self.configured.to_vec() };
        servers.truncate(SERVERS);
        servers
    }

    /// What the first server says that has an answer; one that cannot or will not answer leaves it to the next, as a resolver
    /// would that knew them all, and what it said is told if nobody knows more. By the protocol that the question came by, so
    /// that an answer which is too large for one packet says so, and is fetched by TCP when the client asks again by TCP.
    ///
    /// `own` are netd's own addresses, which would only ask again.
    pub(super) async fn ask(
        &self,
        asker: Asker,
        question: &[u8],
        protocol: Protocol,
        own: &[IpAddr],
    ) -> Option<Message> {
        // Nobody waits in line: a client asks again, and a flood is not to hold up the others.
        let _under_way = self.questions.take(asker)?;
        let mut refusal = None;
        for server in self.servers().into_iter().filter(|server| !own.contains(server)) {
            match exchange(SocketAddr::new(server, PORT), question, protocol).await {
                Ok(answer) if is_refusal(answer.metadata.response_code) => {
                    refusal.get_or_insert(answer);
                }
                Ok(answer) => return Some(answer),
                Err(error) => log::debug!("name server {server}: {error}"),
            }
        }
        refusal
    }
}

/// Whether a server has said no more than that it has no answer.
const fn is_refusal(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::ServFail | ResponseCode::Refused)
}

async fn exchange(server: SocketAddr, question: &[u8], protocol: Protocol) -> Result<Message, NetError> {
    let provider = TokioRuntimeProvider::new();
    let exchange = if protocol.is_datagram() {
        UdpClientStream::builder(server, provider)
            .with_timeout(Some(TIMEOUT))
            // The kernel's own range of ports, which masquerade leaves alone.
            .with_os_port_selection(true)
            .exchange()
    } else {
        TcpClientStream::exchange(server, None, TIMEOUT, None, provider).await?
    };
    let message = Message::from_vec(question)?;
    let answer = exchange.send(DnsRequest::new(message, DnsRequestOptions::default())).first_answer();
    let answer = tokio::time::timeout(TIMEOUT, answer).await.map_err(|_| NetError::Timeout)??;
    Ok(answer.into_message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_servers_stand_before_the_systems_and_three_are_asked() {
        let four: Vec<IpAddr> = (1..=4).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        assert_eq!(Upstream::new(&four).servers(), four[..3]);
    }
}
