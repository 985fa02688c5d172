//! Queues of links that let out only so much: the kernel's `tbf`.

use std::{collections::BTreeMap, io};

use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    packet_core::{
        DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
        Nla as _, NlasIterator,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcMessage, TcOption},
    },
};

use super::{Doing as _, Error, Links, gone_is_as_good};
use crate::plan::Queue;

const KIND: &str = "tbf";
/// Attributes of tbf, and the struct in the first of them:
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/pkt_sched.h>
const PARAMETERS: u16 = 1;
const RATE64: u16 = 4;
const ETHERNET: u8 = 1;

impl Links {
    /// The queues of all links that have one of this kind, by the index of the link.
    pub async fn queues(&self) -> Result<BTreeMap<u32, Queue>, Error> {
        let list = |handle: rtnetlink::Handle| {
            let messages = handle.qdisc().get().execute();
            messages.try_filter_map(async |message| Ok(read(&message))).try_collect()
        };
        self.list("queues", list).await
    }

    /// Gives a link its queue, or takes it away; `option` is what asked for it.
    pub(super) async fn change_queue(
        &self,
        index: u32,
        (name, option): (&str, &str),
        from: Option<Queue>,
        to: Option<Queue>,
    ) -> Result<(), Error> {
        match (from, to) {
            (_, Some(queue)) => {
                let result = self.put_queue(index, queue).await.map_err(explained);
                result.doing(|| format!("keep {name} to {option}"))
            }
            (Some(_), None) => {
                let mut request = self.handle.clone().qdisc().del(index as i32);
                request.message_mut().header.parent = TcHandle::ROOT;
                let result = gone_is_as_good(request.execute().await, libc::ENOENT);
                result.doing(|| format!("free {name} of {option}"))
            }
            (None, None) => Ok(()),
        }
    }

    /// Puts a queue in the place of whatever there is. The library's own request takes no options.
    async fn put_queue(&self, index: u32, queue: Queue) -> Result<(), rtnetlink::Error> {
        let mut message = TcMessage::with_index(index as i32);
        message.header.parent = TcHandle::ROOT;
        message.attributes = attributes(queue);
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut answers = self.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(rtnetlink::Error::NetlinkError(error));
            }
        }
        Ok(())
    }
}

fn explained(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(error) if error.raw_code() == -libc::ENOENT => {
            io::Error::other("the kernel has no tbf queue (CONFIG_NET_SCH_TBF)")
        }
        rtnetlink::Error::NetlinkError(error) => error.to_io(),
        other => io::Error::other(other),
    }
}

fn attributes(queue: Queue) -> Vec<TcAttribute> {
    let option = |kind, bytes: Vec<u8>| TcOption::Other(DefaultNla::new(kind, bytes));
    let rate = u32::try_from(queue.bytes_per_second).unwrap_or(u32::MAX);
    // struct tc_tbf_qopt: two struct tc_ratespec, of which the second is for a peak that nobody asks for.
    let mut parameters = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    parameters.extend(rate.to_ne_bytes());
    parameters.extend([0; 12]);
    for word in [queue.waiting, queue.burst, 0] {
        parameters.extend(word.to_ne_bytes());
    }
    let rate64 = queue.bytes_per_second.to_ne_bytes().to_vec();
    let options = vec![option(PARAMETERS, parameters), option(RATE64, rate64)];
    vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Options(options)]
}

/// The link, and its queue, if it is of this kind and all that leaves the link passes it.
fn read(message: &TcMessage) -> Option<(u32, Queue)> {
    let of_kind = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == KIND);
    if message.header.parent != TcHandle::ROOT || !message.attributes.iter().any(of_kind) {
        return None;
    }
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.first(),
        _ => None,
    })?;
    // The library knows no options of this kind: it leaves all in one.
    let mut bytes = vec![0; options.value_len()];
    options.emit_value(&mut bytes);
    let mut queue = None;
    let mut rate64 = None;
    for option in NlasIterator::new(&bytes) {
        let option = option.ok()?;
        let word = |at: usize| Some(u32::from_ne_bytes(option.value().get(at..at + 4)?.try_into().ok()?));
        match option.kind() {
            PARAMETERS => queue = Some((word(8)?, word(24)?, word(28)?)),
            RATE64 => rate64 = Some(u64::from_ne_bytes(option.value().try_into().ok()?)),
            _ => {}
        }
    }
    let (rate, waiting, burst) = queue?;
    let bytes_per_second = rate64.unwrap_or_else(|| rate.into());
    Some((message.header.index as u32, Queue { bytes_per_second, burst, waiting }))
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use rtnetlink::packet_core::ErrorMessage;

    use super::*;

    #[test]
    fn a_kernel_without_this_kind_of_queue_is_told_of() {
        let mut error = ErrorMessage::default();
        error.code = NonZero::new(-libc::ENOENT);
        let result: Result<(), _> = Err(explained(rtnetlink::Error::NetlinkError(error)));
        let error = result.doing(|| "keep veth0 to netd.rate.ingress".into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot keep veth0 to netd.rate.ingress: the kernel has no tbf queue (CONFIG_NET_SCH_TBF)"
        );
    }
}
