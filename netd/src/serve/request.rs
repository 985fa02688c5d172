//! A request and its answer, as far as they tell whether their connection is waiting or busy.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::seat::{Busy, Seat};

/// A request's body. When all of it has come, the connection is busy.
pub(super) struct Arriving {
    body: Incoming,
    seat: Arc<Seat>,
    arrived: Arrived,
}

/// Where the mark is that a request's seat is busy: with the request until it is answered, then with the answer.
pub(super) type Arrived = Arc<Mutex<Option<Busy>>>;

impl Arriving {
    pub(super) fn new(body: Incoming, seat: Arc<Seat>, arrived: Arrived) -> Self {
        let arriving = Self { body, seat, arrived };
        if arriving.body.is_end_stream() {
            arriving.arrive();
        }
        arriving
    }

    fn arrive(&self) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.get_or_insert_with(|| self.seat.busy());
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if self.body.is_end_stream() || matches!(frame, Poll::Ready(None)) {
            self.arrive();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. As long as it is there, the connection is busy.
pub(super) struct Leaving<B> {
    body: B,
    _arrived: Arrived,
}

impl<B> Leaving<B> {
    pub(super) const fn new(body: B, arrived: Arrived) -> Self {
        Self { body, _arrived: arrived }
    }
}

impl<B: Body + Unpin> Body for Leaving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
