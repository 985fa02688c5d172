//! What one network's name server says to a question.

use std::iter;

use hickory_net::runtime::Time;
use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::Record,
};
use hickory_server::{
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};

use super::{
    addresses,
    share::Asker,
    upstream::Upstream,
    zone::{Answer, Zone},
};
use crate::{engine::Engine, model::Id};

/// The largest answer in one packet that no link is likely to fragment (RFC 9715 section 3.1).
const PAYLOAD: u16 = 1232;
/// The least that every client of EDNS takes (RFC 6891 section 6.2.3).
const LEAST_PAYLOAD: u16 = 512;

/// One network's name server.
pub(super) struct Responder {
    engine: Engine,
    network: Id,
    upstream: Upstream,
}

/// What goes back.
struct Response {
    code: ResponseCode,
    authoritative: bool,
    truncated: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Responder {
    pub(super) const fn new(engine: Engine, network: Id, upstream: Upstream) -> Self {
        Self { engine, network, upstream }
    }

    async fn respond(&self, request: &Request) -> Response {
        if request.metadata.op_code != OpCode::Query || request.metadata.message_type != MessageType::Query {
            return Response::code(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Response::code(ResponseCode::FormErr) };
        let state = self.engine.state();
        let Some(network) = state.networks.get(&self.network) else {
            return Response::code(ResponseCode::ServFail);
        };
        // The names are the network's own affair, and the servers outside are not everybody's.
        let source = info.src.ip().to_canonical();
        if !network.ipam.pools.iter().any(|pool| pool.subnet.contains(&source)) {
            return Response::code(ResponseCode::Refused);
        }
        let (name, kind) = (info.query.original().name(), info.query.query_type());
        match Zone::new(network, &state).answer(name, kind) {
            Answer::Known(records) => Response::known(records),
            Answer::Nobody => Response::code(ResponseCode::NXDomain),
            Answer::Elsewhere if network.internal => Response::code(ResponseCode::NXDomain),
            Answer::Elsewhere => {
                let own: Vec<_> = state.networks.values().flat_map(addresses).collect();
                let asker = Asker::of(&state, self.network, source);
                let question = request.as_slice();
                let answer = self.upstream.ask(asker, question, request.protocol(), &own).await;
                answer.map_or_else(|| Response::code(ResponseCode::ServFail), Response::forwarded)
            }
        }
    }
}

impl Response {
    const fn code(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            truncated: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }

    /// Several endpoints of one name share the load: each answer has another order.
    fn known(mut answers: Vec<Record>) -> Self {
        shuffle(&mut answers);
        Self { authoritative: true, answers, ..Self::code(ResponseCode::NoError) }
    }

    fn forwarded(answer: Message) -> Self {
        Self {
            code: answer.metadata.response_code,
            authoritative: false,
            truncated: answer.metadata.truncation,
            answers: answer.answers,
            authorities: answer.authorities,
            additionals: answer.additionals,
        }
    }
}

/// Any order is as likely as any other, where there are random bytes; without them the order stays.
fn shuffle(records: &mut [Record]) {
    for end in (1..records.len()).rev() {
        let mut random = [0; 4];
        if getrandom::fill(&mut random).is_ok() {
            records.swap(end, u32::from_ne_bytes(random) as usize % (end + 1));
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Responder {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut handle: R,
    ) -> ResponseInfo {
        let response = self.respond(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = response.code;
        metadata.authoritative = response.authoritative;
        metadata.truncation = response.truncated;
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(LEAST_PAYLOAD, PAYLOAD)).set_version(0);
            edns
        });
        let sent = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
            metadata,
            &response.answers,
            &response.authorities,
            iter::empty(),
            &response.additionals,
        );
        match handle.send_response(sent).await {
            Ok(info) => info,
            Err(error) => {
                log::debug!("a name server's answer to {}: {error}", request.src());
                hickory_proto::op::Header { metadata, counts: Default::default() }.into()
            }
        }
    }
}
