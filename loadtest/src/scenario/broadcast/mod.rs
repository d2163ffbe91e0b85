//! Broadcast load: publishers send to topics, all members of a topic receive, each message is followed to the last.
//!
//! Publishers are members of their topic too, and receive what they send. In a closed loop the next batch
//! leaves when all readers that this process has got as much as all publishers send in a round; when everyone
//! talks, each when it has got that itself. With a rate the loop is open: each batch has a time at which it
//! should be sent, and its latencies count from then.
//!
//! The clock of latencies is `CLOCK_MONOTONIC`, which all processes of a machine share.

mod bystanders;
mod log;
mod member;
mod nats;
mod options;
mod reached;
mod schedule;
mod sequence;
mod stalled;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use mio::event::Event as Readiness;
use mio::{Events, Poll, Token};
use rustix::net::RecvFlags;
use stentor::protocol::Event;

pub use self::bystanders::{Bystanders, PER_SECOND};
use self::log::Shape;
use self::member::{Board, Intake, Member, Publisher};
pub use self::options::{Dialect, Options, TOPIC};
use self::schedule::Schedule;
use super::echo::{Asking, Check};
use super::stamp::{Stamp, now};
use crate::centrifugo::{self, Subscription};
use crate::client::{Client, Fault, PATIENCE, Shared, Width, require_server};
use crate::dial::{Dialer, Manners, Wanted};
use crate::failure::{Error, Failure, Failures};
use crate::frame;
use crate::latency::Latencies;
use crate::outcome::{Counted, Outcome, Recorded};
use crate::report::{Figure, Unit};
use crate::units::float;
use crate::wait::wait;
use crate::worker::{Job, Line, Run, Said, Step, Until};

/// A server may still be subscribing a connection whose handshake it has answered.
const SETTLING: Duration = Duration::from_millis(50);
/// How long the last messages may take when nothing else is delivered meanwhile.
const LAST_MESSAGES: Duration = Duration::from_secs(2);
/// How long it is quiet when all messages have come, where nobody knows how many there were.
const QUIET: Duration = Duration::from_millis(250);
/// What a publisher of a closed loop has not got back after so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// Makes one process' share of the load.
///
/// # Errors
///
/// If there is no server, or a connection cannot even be opened.
pub fn run(options: &Options, job: &Job, line: &mut Line<'_>) -> Result<Outcome, Error> {
    let mut load = Load::open(options, job, line)?;
    let bystanders = bystanders::Waiting::open(options, job, line, load.open_members())?;
    std::thread::sleep(SETTLING);
    line.wait_for_all()?;
    let mut run = Run::begin(job, line, std::mem::take(&mut load.failures));
    let mut events = Events::with_capacity(1024);
    let bystanders = bystanders.map(bystanders::Waiting::start);
    load.start();
    loop {
        match run.step()? {
            Step::Continue(left) => load.turn(left, &mut events, &mut run)?,
            Step::Counting => {
                load.start_counting();
                if let Some(bystanders) = &bystanders {
                    bystanders.start_counting();
                }
            }
            Step::Over => break,
        }
        if load.members.iter().all(Option::is_none) {
            break;
        }
    }
    if let Some(bystanders) = &bystanders {
        bystanders.stop();
    }
    // Where the count ends the run, all that was sent is part of it.
    let (deliveries, messages, (used, latencies)) = if matches!(job.until, Until::Counted(_)) {
        load.await_last_messages(&mut events, &mut run)?;
        (run.count, load.published, run.finish()?)
    } else {
        let counted = (run.count, load.published, run.finish()?);
        load.await_last_messages(&mut events, &mut run)?;
        counted
    };
    load.count_missing(&mut run);
    load.wake_stalled(&mut events)?;
    let mut counted = vec![
        Counted::new("deliveries", "delivery", deliveries),
        Counted::new("messages", "message", messages),
    ];
    let mut latencies = load.latencies(&latencies);
    if let Some(bystanders) = bystanders {
        let found = bystanders.join()?;
        counted.push(found.counted());
        latencies.extend(found.latencies());
        run.failures.merge(found.failures);
    }
    Ok(Outcome {
        counted,
        measured: load.figures(),
        latencies,
        last_seen: (load.board.reached)
            .seen(|publisher| options.readers_of(publisher % options.topics)),
        used,
        failures: std::mem::take(&mut run.failures),
    })
}

struct Load<'o> {
    options: &'o Options,
    job: &'o Job,
    poll: Poll,
    shared: Shared,
    /// Publishers, then subscribers. A member that failed leaves its place empty.
    members: Vec<Option<Box<Member>>>,
    /// The numbers of this process' publishers among those of all, and how many messages each has sent.
    first_publisher: usize,
    sent: Vec<u64>,
    board: Board,
    /// By topic: members of this process that read.
    readers: Vec<u64>,
    schedule: Option<Schedule>,
    is_publishing: bool,
    /// Messages published while counting.
    published: u64,
    /// A payload, or what is said to a NATS server.
    scratch: Vec<u8>,
    looked: u64,
    stalled_closed: u64,
    receives: u64,
    turns: u64,
    /// Messages that came before counting began.
    delivered_before: u64,
    failures: Failures,
}

impl<'o> Load<'o> {
    fn open(options: &'o Options, job: &'o Job, line: &mut Line<'_>) -> Result<Self, Error> {
        require_server(&job.target)?;
        let (publishers, first_publisher) = job.share(options.publishers);
        let (subscribers, first_subscriber) = job.share(options.subscribers);
        let topic = |place: usize| match place.checked_sub(publishers) {
            None => (first_publisher + place) % options.topics,
            Some(subscriber) => (first_subscriber + subscriber) % options.topics,
        };
        let subscription = |place: usize| Subscription::to(subject(topic(place)));
        let mut load = Load {
            options,
            job,
            poll: Poll::new().map_err(Error::local("epoll"))?,
            shared: Shared::new(job.target.clone()),
            members: Vec::new(),
            first_publisher,
            sent: vec![0; publishers],
            board: Board::new(options),
            readers: vec![0; options.topics],
            schedule: None,
            is_publishing: true,
            published: 0,
            scratch: Vec::new(),
            looked: 0,
            stalled_closed: 0,
            receives: 0,
            turns: 0,
            delivered_before: 0,
            failures: Failures::default(),
        };
        let wanted = Wanted {
            places: 0..publishers + subscribers,
            first: first_publisher + first_subscriber,
            path: &|place| path(&job.target.path, topic(place)),
            width: &|place| match place.checked_sub(publishers) {
                Some(subscriber) if options.is_stalled(first_subscriber + subscriber) => {
                    Width::Narrow
                }
                _ => Width::Normal,
            },
            manners: match options.dialect {
                Dialect::Raw => Manners::Silent,
                Dialect::Nats => Manners::Talkative,
                Dialect::Centrifugo => Manners::Centrifugo(&subscription),
            },
        };
        for (place, client) in load.dial(wanted, line)?.into_iter().enumerate() {
            let number = (place < publishers).then(|| (first_publisher + place) as u32);
            let member =
                client.map(|client| Box::new(Member::new(client, topic(place), number, options)));
            load.members.push(member);
        }
        if options.dialect == Dialect::Nats {
            load.greet()?;
        }
        for subscriber in 0..subscribers {
            if options.is_stalled(first_subscriber + subscriber) {
                load.stall(publishers + subscriber)?;
            }
        }
        for member in load
            .members
            .iter()
            .flatten()
            .filter(|member| !member.is_stalled)
        {
            load.readers[member.inbox.topic] += 1;
        }
        load.schedule = Schedule::of(options, publishers, &load.poll)?;
        Ok(load)
    }

    fn dial(
        &mut self,
        wanted: Wanted<'_>,
        line: &mut Line<'_>,
    ) -> Result<Vec<Option<Client>>, Error> {
        let mut clients = Vec::new();
        let mut dialer = Dialer {
            poll: &mut self.poll,
            shared: &mut self.shared,
            clients: &mut clients,
            failures: &mut self.failures,
            pace: self.job.pace,
        };
        dialer.open(wanted, |open| {
            // Nobody listens any more: the next who has to be heard finds out.
            let _ = line.say(&Said::Opened(open));
        })?;
        Ok(clients)
    }

    /// Subscribes all members of a NATS server, and waits until it has.
    fn greet(&mut self) -> Result<(), Error> {
        for place in 0..self.members.len() {
            self.attempt(place, |member, _| {
                member
                    .client
                    .send(&nats::greeting(&subject(member.inbox.topic)));
                member.client.flush()
            });
        }
        let (mut events, deadline) = (Events::with_capacity(1024), Instant::now() + PATIENCE);
        let is_waiting = |member: &Member| !member.inbox.is_greeted;
        while self
            .members
            .iter()
            .flatten()
            .any(|member| is_waiting(member))
        {
            if Instant::now() > deadline {
                let what = format!("NATS: a subscription was not confirmed within {PATIENCE:?}");
                return Err(Error::Server(what));
            }
            wait(&mut self.poll, &mut events, PATIENCE)?;
            for readiness in &events {
                self.attempt(readiness.token().0, |member, shared| {
                    let Member { client, inbox, .. } = member;
                    client.ready(readiness)?;
                    client.receive(shared, |client, event| match event {
                        Event::Message(message) => inbox.greet(client, message.payload()),
                        _ => Ok(()),
                    })
                });
            }
        }
        Ok(())
    }

    fn open_members(&self) -> usize {
        self.members.iter().flatten().count()
    }

    /// Does something with a member before the run, and buries it if that fails.
    fn attempt(
        &mut self,
        place: usize,
        action: impl FnOnce(&mut Member, &mut Shared) -> Result<(), Fault>,
    ) {
        let Some(Some(member)) = self.members.get_mut(place) else {
            return;
        };
        if let Err(Fault(failure, what)) = action(member, &mut self.shared) {
            self.members[place] = None;
            self.failures
                .add(failure, format_args!("member {place}: {what}"));
        }
    }

    fn stall(&mut self, place: usize) -> Result<(), Error> {
        let Some(member) = &mut self.members[place] else {
            return Ok(()); // It never came to be.
        };
        member.is_stalled = true;
        stalled::stall(&member.client, Token(place), &self.poll)
    }

    fn start(&mut self) {
        self.looked = now();
        match &mut self.schedule {
            Some(schedule) => schedule.start = now(),
            None => (0..self.sent.len()).for_each(|place| self.publish_first(place)),
        }
    }

    fn publish_first(&mut self, place: usize) {
        let Some(mut member) = self.members[place].take() else {
            return;
        };
        // What does not leave at once leaves with the first readiness.
        if self.publish_while_free(&mut member).is_ok() {
            self.members[place] = Some(member);
        }
    }

    fn start_counting(&mut self) {
        (self.receives, self.turns, self.published) = (0, 0, 0);
        self.delivered_before = self.delivered();
        self.board.reached.start(now());
        if let Some(schedule) = &mut self.schedule {
            schedule.lag.clear();
        }
    }

    fn turn(
        &mut self,
        timeout: Duration,
        events: &mut Events,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Error> {
        self.turns += 1;
        let timeout = match &mut self.schedule {
            Some(schedule) if self.is_publishing => schedule.arm(timeout)?,
            _ => timeout,
        };
        wait(&mut self.poll, events, timeout)?;
        if self.is_publishing {
            self.publish_on_schedule(run);
            self.forgive_lost(run);
        }
        for readiness in events.iter() {
            self.with(readiness.token().0, run, |member, load, run| {
                load.serve(member, readiness, run)
            });
        }
        if !self.options.is_everyone {
            self.publish_delivered(run);
        }
        Ok(())
    }

    /// In a closed loop: lets publishers go on whose batches have come to all.
    fn publish_delivered(&mut self, run: &mut Run<'_, '_>) {
        let publishers = match self.options.asking {
            Asking::InFlight(_) => self.sent.len(),
            Asking::PerSecond(_) => 0,
        };
        for place in 0..publishers {
            self.with(place, run, |member, load, _| {
                load.publish_while_free(member)
            });
        }
    }

    /// Does something with a member that still lives, and buries it if that fails.
    fn with(
        &mut self,
        place: usize,
        run: &mut Run<'_, '_>,
        action: impl FnOnce(&mut Member, &mut Self, &mut Run<'_, '_>) -> Result<(), Fault>,
    ) {
        let Some(mut member) = self.members.get_mut(place).and_then(Option::take) else {
            return; // Or the timer's token, which has no place.
        };
        match action(&mut member, self, run) {
            Ok(()) => self.members[place] = Some(member),
            // A server need not keep those who do not read.
            Err(_) if member.is_stalled => self.stalled_closed += 1,
            Err(Fault(failure, what)) => {
                let what = format_args!("member {place}: {what}");
                run.failures.add(failure, what);
            }
        }
    }

    fn serve(
        &mut self,
        member: &mut Member,
        readiness: &Readiness,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Fault> {
        if member.is_stalled {
            return stalled::still_there(readiness);
        }
        member.client.ready(readiness)?;
        if !member.client.wants_receive(readiness) {
            return Ok(());
        }
        self.receives += 1;
        if self.options.check == Check::Length {
            let is_ending = readiness.is_read_closed() || readiness.is_error();
            self.count(member, is_ending, run)?;
        } else {
            self.receive(member, run)?;
        }
        if self.options.is_everyone {
            self.publish_while_free(member)?;
        }
        Ok(())
    }

    fn receive(&mut self, member: &mut Member, run: &mut Run<'_, '_>) -> Result<(), Fault> {
        let Member { client, inbox, .. } = member;
        let mut intake = Intake::new(inbox, &mut self.board, run);
        let received = client.receive_bytes(&mut self.shared, |client, input| {
            intake.bytes(client, input)
        });
        intake.finish();
        received
    }

    /// Counts frames by their bytes. These are copied out of the kernel all the same: who sends pays for memory
    /// that another core has just read, and must pay so whether or not anybody looks at it.
    fn count(
        &mut self,
        member: &mut Member,
        is_ending: bool,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Fault> {
        let frame_len = frame::server_frame_len(self.options.size) as u64;
        loop {
            let buffer = self.shared.buffer();
            let is_first = member.inbox.bytes == 0;
            let flags = RecvFlags::empty();
            let received = match rustix::net::recv(member.client.stream(), &mut *buffer, flags) {
                Ok((_, 0)) => return Err(Fault(Failure::Closed, "end of stream".into())),
                Ok((_, received)) => received,
                Err(error) => match std::io::Error::from(error) {
                    error if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    error if error.kind() == ErrorKind::Interrupted => continue,
                    error => return Err(error.into()),
                },
            };
            if is_first {
                require_header(&buffer[..received], self.options.size)?;
            }
            member.inbox.bytes += received as u64;
            let complete = member.inbox.bytes / frame_len;
            run.count += complete - member.inbox.received;
            self.board.delivered[member.inbox.topic] += complete - member.inbox.received;
            member.inbox.received = complete;
            if received < buffer.len() && !is_ending {
                return Ok(());
            }
        }
    }

    /// In a closed loop: sends the batches that there is room for in flight.
    fn publish_while_free(&mut self, member: &mut Member) -> Result<(), Fault> {
        let Asking::InFlight(in_flight) = self.options.asking else {
            return Ok(());
        };
        while self.is_publishing
            && let Some(publisher) = &member.publisher
            && self.in_flight(member, publisher) < in_flight as u64
        {
            self.publish(member, self.options.batch, now(), false);
        }
        member.client.flush()
    }

    /// Batches that were not delivered yet, as far as this process can tell.
    fn in_flight(&self, member: &Member, publisher: &Publisher) -> u64 {
        let sent = publisher.sequence / self.options.batch as u64;
        let (delivered, awaited) = self.delivered_for(member);
        sent.saturating_sub((delivered + publisher.forgiven) / awaited.max(1))
    }

    /// Messages that have come, of those that a publisher waits for, and how many these are for each batch.
    fn delivered_for(&self, member: &Member) -> (u64, u64) {
        let topic = member.inbox.topic;
        let round = self.options.round(topic);
        if self.options.is_everyone {
            (member.inbox.received, round)
        } else {
            (self.board.delivered[topic], round * self.readers[topic])
        }
    }

    /// Queues a batch.
    fn publish(&mut self, member: &mut Member, messages: usize, sent: u64, is_last: bool) {
        let Some(publisher) = &mut member.publisher else {
            return;
        };
        let Load {
            scratch,
            board,
            options,
            ..
        } = self;
        scratch.clear();
        for _ in 0..messages {
            let stamp = Stamp {
                publisher: publisher.number,
                is_last,
                sequence: publisher.sequence,
                sent,
            };
            let nth = publisher.sequence;
            publisher.sequence += 1;
            match options.dialect {
                Dialect::Raw => {
                    scratch.clear();
                    board.payloads.write(stamp, scratch);
                    member.client.send(&*scratch);
                }
                Dialect::Nats => {
                    let subject = subject(member.inbox.topic);
                    nats::publish(&subject, options.size, scratch, |out| {
                        board.payloads.write(stamp, out);
                    });
                }
                Dialect::Centrifugo => {
                    scratch.clear();
                    let channel = subject(member.inbox.topic);
                    centrifugo::publish(nth, &channel, scratch, |out| {
                        board.payloads.write(stamp, out);
                    });
                    let command = str::from_utf8(scratch).expect("text was written");
                    member.client.send(command);
                }
            }
        }
        if options.dialect == Dialect::Nats {
            member.client.send(&*scratch);
        }
        publisher.since = now();
        self.published += messages as u64;
        self.sent[publisher.number as usize - self.first_publisher] = publisher.sequence;
    }

    /// Sends every batch whose time has come; those of one publisher leave together.
    fn publish_on_schedule(&mut self, run: &mut Run<'_, '_>) {
        let Some(mut schedule) = self.schedule.take() else {
            return;
        };
        let publishers = self.sent.len();
        let (now, first) = (now(), schedule.batches);
        while schedule.next() <= now {
            let intended = schedule.next();
            schedule.lag.record(Duration::from_nanos(now - intended));
            if let Some(mut member) = self.members[schedule.advance(publishers)].take() {
                self.publish(&mut member, self.options.batch, intended, false);
                let place = member.publisher.as_ref().map_or(0, |publisher| {
                    publisher.number as usize - self.first_publisher
                });
                self.members[place] = Some(member);
            }
        }
        for batch in (first..schedule.batches).take(publishers) {
            let place = (batch % publishers as u64) as usize;
            self.with(place, run, |member, _, _| member.client.flush());
        }
        self.schedule = Some(schedule);
    }

    /// A closed loop goes on after messages that were lost: they are counted in the end.
    fn forgive_lost(&mut self, run: &mut Run<'_, '_>) {
        let now = now();
        if self.schedule.is_some() || now - self.looked < LOST_AFTER.as_nanos() as u64 / 4 {
            return;
        }
        self.looked = now;
        for place in 0..self.sent.len() {
            self.with(place, run, |member, load, _| {
                let (delivered, awaited) = load.delivered_for(member);
                let Some(publisher) = &mut member.publisher else {
                    return Ok(());
                };
                if now.saturating_sub(publisher.since) < LOST_AFTER.as_nanos() as u64 {
                    return Ok(());
                }
                let batches = publisher.sequence / load.options.batch as u64;
                publisher.forgiven = (batches * awaited).saturating_sub(delivered);
                load.publish_while_free(member)
            });
        }
    }

    /// Every message must reach every member: what is counted is worth nothing if some never did.
    fn await_last_messages(
        &mut self,
        events: &mut Events,
        run: &mut Run<'_, '_>,
    ) -> Result<(), Error> {
        self.is_publishing = false;
        for place in 0..self.sent.len() {
            self.with(place, run, |member, load, _| {
                load.publish(member, 1, now(), true);
                member.client.flush()
            });
        }
        let (mut last_receive, patience) = (Instant::now(), self.patience());
        while !self.is_complete() && last_receive.elapsed() < patience {
            let receives = self.receives;
            self.turn(patience / 10, events, run)?;
            if self.receives > receives {
                last_receive = Instant::now();
            }
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        if self.options.check == Check::Length && self.job.processes > 1 {
            QUIET
        } else {
            LAST_MESSAGES
        }
    }

    fn readers(&self) -> impl Iterator<Item = &Member> {
        let members = self.members.iter().flatten().map(Box::as_ref);
        members.filter(|member| !member.is_stalled)
    }

    fn is_complete(&self) -> bool {
        self.readers().all(|member| match self.options.check {
            Check::Length => self.sent_to(member) == Some(member.inbox.received),
            _ => member.inbox.is_complete(&self.board) && self.unconfirmed(member) == 0,
        })
    }

    /// Publications of a member that its server should have confirmed, and has not.
    fn unconfirmed(&self, member: &Member) -> u64 {
        match &member.publisher {
            Some(publisher) if self.options.dialect == Dialect::Centrifugo => {
                publisher.sequence.saturating_sub(member.inbox.confirmed)
            }
            _ => 0,
        }
    }

    /// How many messages there were for a member, if this process sent all of them.
    fn sent_to(&self, member: &Member) -> Option<u64> {
        let sent = self.sent.iter().skip(member.inbox.topic);
        (self.job.processes == 1).then(|| sent.step_by(self.options.topics).sum())
    }

    fn count_missing(&self, run: &mut Run<'_, '_>) {
        for member in self.readers() {
            let (missing, surplus) = match self.options.check {
                Check::Length => {
                    let received = member.inbox.received;
                    let sent = self.sent_to(member).unwrap_or(received);
                    (sent.saturating_sub(received), received.saturating_sub(sent))
                }
                _ => (self.gaps(member), 0),
            };
            let topic = member.inbox.topic;
            if missing > 0 {
                let what = format_args!("a member of topic {topic} misses {missing} messages");
                run.failures.add_many(Failure::Gap, missing, what);
            }
            if surplus > 0 {
                let what = format_args!("a member of topic {topic} has {surplus} too many");
                run.failures.add_many(Failure::Surplus, surplus, what);
            }
            let unconfirmed = self.unconfirmed(member);
            if unconfirmed > 0 {
                let what = format_args!("{unconfirmed} publications were not confirmed");
                run.failures
                    .add_many(Failure::Unanswered, unconfirmed, what);
            }
        }
    }

    fn gaps(&self, member: &Member) -> u64 {
        let (topic, topics) = (member.inbox.topic, self.options.topics);
        member.inbox.gaps(&self.board, |place| {
            let own = (topic + place * topics).checked_sub(self.first_publisher);
            self.sent.get(own?).copied()
        })
    }

    /// Counts the stalled whose connection is over behind what they did not read.
    fn wake_stalled(&mut self, events: &mut Events) -> Result<(), Error> {
        let is_stalled =
            |member: &Option<Box<Member>>| member.as_ref().is_some_and(|member| member.is_stalled);
        for place in 0..self.members.len() {
            if let Some(member) = self.members[place].as_ref().filter(|it| it.is_stalled) {
                stalled::wake(&member.client, Token(place), &self.poll)?;
            }
        }
        let deadline = Instant::now() + LAST_MESSAGES;
        while self.members.iter().any(is_stalled) && Instant::now() < deadline {
            wait(&mut self.poll, events, QUIET)?;
            if events.is_empty() {
                break;
            }
            for readiness in events.iter() {
                let Some(member) = self.members.get_mut(readiness.token().0) else {
                    continue;
                };
                let is_over = |member: &mut Box<Member>| {
                    member.is_stalled && stalled::is_over(&member.client)
                };
                self.stalled_closed += u64::from(member.take_if(is_over).is_some());
            }
        }
        Ok(())
    }

    fn figures(&self) -> Vec<Figure> {
        let batching = float(self.receives) / float(self.turns.max(1));
        let delivered = self.delivered() - self.delivered_before;
        let gathered = float(delivered) / float(self.receives.max(1));
        let mut figures = vec![
            Figure::new("receives_per_turn", "batching", batching, Unit::Ratio),
            Figure::new("messages_per_receive", "gathered", gathered, Unit::Ratio),
        ];
        if self.options.stalled > 0 {
            // The report has the mean of all processes, which is then their sum.
            let closed = float(self.stalled_closed) * float(self.job.processes as u64);
            figures.push(Figure::new(
                "stalled_closed",
                "stalled, closed",
                closed,
                Unit::Count,
            ));
        }
        figures
    }

    /// Messages that came to members of this process.
    fn delivered(&self) -> u64 {
        self.board.delivered.iter().sum()
    }

    fn latencies(&self, recorded: &Latencies) -> Vec<Recorded> {
        let mut latencies = Vec::new();
        if self.options.check != Check::Length {
            latencies.push(Recorded::new("delivery", "delivery", recorded));
        }
        if let Some(schedule) = &self.schedule {
            latencies.push(Recorded::new("send_lag", "send lag", &schedule.lag));
        }
        latencies
    }
}

fn path(template: &str, topic: usize) -> String {
    template.replace(TOPIC, &subject(topic))
}

fn subject(topic: usize) -> String {
    format!("t{topic}")
}

fn require_header(received: &[u8], size: usize) -> Result<(), Fault> {
    let expected = Shape::of_payload(size).header;
    // FIN and no reserved bit; the opcode is left to a program that did not read ours.
    match received.get(..expected.len()) {
        Some(seen) if seen[0] & 0xf0 != 0x80 || seen[1..] != expected[1..] => Err(Fault(
            Failure::Corrupt,
            format!("the header of a message is {seen:02x?}"),
        )),
        _ => Ok(()),
    }
}
