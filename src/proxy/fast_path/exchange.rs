//! One exchange: a request is sent to a server, and its response to the client.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::task::Poll;
use std::time::{Duration, Instant};

use pingora::ErrorType::{ConnectionClosed, InvalidHTTPHeader, WriteError, WriteTimedout};
use pingora::protocols::Shutdown;
use pingora::server::ShutdownWatch;
use pingora::{Error, ErrorSource, Result};
use tokio::task::yield_now;

use crate::pool::server_connection::ServerConnection;
use crate::proxy::access_log;
use crate::proxy::connection::deadlines::DeadlineStream;
use crate::proxy::connection::handed_over::{HandedOver, Stage};
use crate::proxy::connection::read_buffer::ReadBuffer;
use crate::proxy::context::RequestContext;
use crate::proxy::request::limits;
use crate::proxy::upstream::failure::{self, Progress};
use crate::proxy::upstream::peer;
use crate::telemetry::metrics::FullPathReason;

use super::body::Body;
use super::request::{MAX_FIELDS, Request};
use super::response::{self, Head, Step};
use super::server;
use super::settings::{FastPath, ServeResult, Timeouts};

/// Bytes of a body that are copied behind what is sent before them, so that both go with one system call.
const COPIED: usize = 16 << 10;

/// Serves a request whose head has arrived; `head` is a copy of it.
pub(super) async fn serve(
    path: &FastPath,
    connection: &mut DeadlineStream,
    head: Vec<u8>,
    shutdown: &ShutdownWatch,
) -> ServeResult {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let request = match Request::parse(&head, &mut fields) {
        Ok(request) => request,
        Err(why) => return path.leave_to_full_path(why),
    };
    let mut ctx = RequestContext::begin(&path.app);
    let length = match request.identify(connection, &mut ctx) {
        Ok(length) => length,
        Err(why) => return path.leave_to_full_path(why),
    };
    let body = connection.behind_head(head.len()).get(..length).unwrap_or_default().to_vec();
    connection.begin_exchange(head.len() + length);
    if let Err((stage, why)) = request.start(&mut ctx) {
        connection.put_back(&[head, body].concat(), HandedOver { context: Box::new(ctx), stage });
        return path.leave_to_full_path(why);
    }
    let stops = || path.app.is_draining() || *shutdown.borrow();
    let batches = path.batches();
    let mut exchange = match begin(connection, batches, &mut ctx).await {
        Ok(exchange) => exchange,
        Err(error) => return hand_over(path, connection, &[&head, &body], ctx, error),
    };
    match exchange.run(connection, (&request, &body), &mut ctx, &stops).await {
        Ok(keeps) => {
            path.app.metrics.fast_requests.inc();
            let Exchange { server, sent, status, reusable, timeouts, .. } = exchange;
            let ended = Instant::now();
            if reusable && !timeouts.idle.is_zero() {
                server::keep(server, &ctx, ended + timeouts.idle, path.max_idle);
            }
            access_log::note(request.view(), (status, ended), || (length, sent), None, &mut ctx);
            drop(ctx);
            end(connection, keeps).await
        }
        Err(error) => {
            let error = exchange.fail(&request, &mut ctx, error);
            if !exchange.begun && *error.esource() != ErrorSource::Downstream {
                return hand_over(path, connection, &[&head, &body], ctx, error);
            }
            path.app.metrics.fast_requests.inc();
            let (status, sent) = (exchange.status, exchange.sent);
            access_log::note(request.view(), (status, Instant::now()), || (length, sent), Some(&error), &mut ctx);
            drop((exchange, ctx));
            if *error.esource() != ErrorSource::Downstream {
                connection.shutdown().await;
            }
            ServeResult::Closed
        }
    }
}

/// The response was sent.
async fn end(connection: &mut DeadlineStream, keeps: bool) -> ServeResult {
    if keeps {
        connection.end_exchange();
        return ServeResult::Next;
    }
    connection.shutdown().await;
    ServeResult::Closed
}

/// The attempt has failed before the client got anything: what follows is for the full path.
fn hand_over(
    path: &FastPath,
    connection: &mut DeadlineStream,
    request: &[&[u8]],
    mut ctx: RequestContext,
    error: Box<Error>,
) -> ServeResult {
    if !error.retry() {
        ctx.attempts.failure = Some(error);
    }
    connection.put_back(&request.concat(), HandedOver { context: Box::new(ctx), stage: Stage::Resolved });
    path.leave_to_full_path(FullPathReason::Failure)
}

/// Connects to the server of the attempt.
async fn begin(connection: &DeadlineStream, batches: bool, ctx: &mut RequestContext) -> Result<Exchange> {
    let timeouts = Timeouts::of(connection, ctx);
    let (server, reused) = match server::connect(ctx, &timeouts).await {
        Ok(connected) => connected,
        Err(error) => return Err(failure::on_connect(ctx, error.into_up()).into_up()),
    };
    peer::connected(true, reused, server.number(), ctx);
    Ok(Exchange {
        server,
        reused,
        timeouts,
        input: ReadBuffer::default(),
        // Most heads, and small responses.
        out: Vec::with_capacity(2048),
        begun: false,
        status: 0,
        sent: 0,
        reusable: false,
        batches,
    })
}

/// An exchange with a server.
struct Exchange {
    server: ServerConnection,
    /// The connection has carried other requests.
    reused: bool,
    timeouts: Timeouts,
    /// What the server has sent and the client has not got.
    input: ReadBuffer,
    /// What is written next.
    out: Vec<u8>,
    /// The client gets the response.
    begun: bool,
    /// Its status.
    status: u16,
    /// Bytes of the body that the client got.
    sent: usize,
    /// The connection to the server can be used again.
    reusable: bool,
    /// Writes wait for other requests that are ready.
    batches: bool,
}

impl Exchange {
    /// Runs it to its end. True: the client's connection is kept.
    async fn run(
        &mut self,
        client: &mut DeadlineStream,
        (request, body): (&Request<'_>, &[u8]),
        ctx: &mut RequestContext,
        stops: &impl Fn() -> bool,
    ) -> Result<bool> {
        request.write_head(ctx, &mut self.out);
        if !body.is_empty() {
            limits::count_request_bytes(body.len(), ctx);
            self.out.extend_from_slice(body);
        }
        self.let_others_run().await;
        server::send(&mut self.server, &self.out, client, self.timeouts.write).await?;
        self.out.clear();
        let (head, keeps) = self.read_head(client, request, ctx, stops).await?;
        (self.begun, self.status) = (true, head.status.as_u16());
        let mut body = Body::new(head.framing);
        let has_body = !body.is_complete();
        while !body.is_complete() {
            self.pass_piece(&mut body, &head, client, request, ctx).await?;
            if body.is_complete() {
                break;
            }
            if self.read(client).await? == 0 {
                if !body.end(&mut self.out) {
                    return closed("before the end of a response");
                }
                failure::check_end_of(ctx, || head.has_length)?;
            }
        }
        if !has_body || !self.out.is_empty() {
            self.send_out(client, 0).await?;
        }
        self.reusable = head.server_keeps && head.framing.leaves_reusable(self.input.bytes()) && !ctx.attempts.unshare;
        Ok(keeps)
    }

    /// The final head; those before it go to the client. It is written, and sent with the first piece of the body.
    async fn read_head(
        &mut self,
        client: &mut DeadlineStream,
        request: &Request<'_>,
        ctx: &mut RequestContext,
        stops: &impl Fn() -> bool,
    ) -> Result<(Head, bool)> {
        loop {
            let keeps = !request.closes && !stops();
            let step = if self.input.is_empty() {
                Step::Partial
            } else {
                let exchange = response::Exchange { request, authentication: client.authentication(), keeps };
                response::take_head(self.input.bytes(), &exchange, ctx, &mut self.out)?
            };
            match step {
                Step::Partial => {
                    if self.read(client).await? == 0 {
                        return closed("while reading response headers");
                    }
                }
                Step::Commit => Box::pin(response::commit(self.input.bytes().to_vec(), request, ctx)).await,
                Step::Head(head) => {
                    self.input.consume(head.length);
                    if head.is_final {
                        return Ok((head, keeps));
                    }
                    self.send_out(client, 0).await?;
                }
            }
        }
    }

    /// What has arrived of the body goes to the client, with what is to be sent before it.
    async fn pass_piece(
        &mut self,
        body: &mut Body,
        head: &Head,
        client: &mut DeadlineStream,
        request: &Request<'_>,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let plain = body.plain(self.input.bytes());
        let (payload, direct) = if plain > COPIED {
            body.advance(plain);
            (plain, plain)
        } else {
            let Ok(passed) = body.pass(self.input.bytes(), &mut self.out) else {
                // What was valid goes to the client, which sees that the rest is missing.
                self.send_out(client, 0).await?;
                return Err(Error::explain(InvalidHTTPHeader, "malformed chunks").into_up());
            };
            self.input.consume(passed.consumed);
            (passed.payload, 0)
        };
        if payload > 0 {
            limits::count_response_bytes(payload, ctx);
        }
        if body.is_complete() {
            failure::check_end_of(ctx, || head.has_length)?;
        } else if payload > 0 {
            ctx.note_piece(request.view());
        }
        self.send_out(client, direct).await?;
        self.input.consume(direct);
        self.sent += payload;
        Ok(())
    }

    async fn read(&mut self, client: &mut DeadlineStream) -> Result<usize> {
        server::read(&mut self.server, &mut self.input, client, self.timeouts.read).await
    }

    /// Sends to the client what was written, and then so many bytes of what the server has sent.
    async fn send_out(&mut self, client: &mut DeadlineStream, direct: usize) -> Result<()> {
        if self.out.is_empty() && direct == 0 {
            return Ok(());
        }
        self.let_others_run().await;
        let direct = self.input.bytes().get(..direct).unwrap_or_default();
        send(client, (&self.out, direct), self.timeouts.client_write).await?;
        self.out.clear();
        Ok(())
    }

    /// With many requests in flight their writes are batched: servers and clients on this machine are woken once for a batch, and
    /// code and data stay in the processor's caches. It saves a fifth of the CPU time.
    async fn let_others_run(&self) {
        if self.batches {
            yield_now().await;
        }
    }

    /// Judges a failure. Whether the request is sent again is in the error.
    #[expect(clippy::unnecessary_box_returns, reason = "the form of Pingora's errors")]
    fn fail(&self, request: &Request<'_>, ctx: &mut RequestContext, error: Box<Error>) -> Box<Error> {
        let progress = Progress {
            response_begun: self.begun,
            reused: self.reused,
            idempotent: request.method.is_idempotent(),
            replayable: true,
            body_done: true,
        };
        failure::on_break(progress, ctx, error)
    }
}

fn closed<T>(when: &'static str) -> Result<T> {
    Err(Error::explain(ConnectionClosed, when).into_up())
}

async fn send(client: &mut DeadlineStream, bytes: (&[u8], &[u8]), timeout: Duration) -> Result<()> {
    client.clear_deadline();
    let mut sent = 0;
    poll_fn(|context| match client.poll_send(bytes, &mut sent, context) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(error)) => {
            Poll::Ready(Err(Error::because(WriteError, "while sending a response", error).into_down()))
        }
        Poll::Pending => client.poll_timeout(timeout, context).map(|()| Err(Error::new(WriteTimedout).into_down())),
    })
    .await
}
