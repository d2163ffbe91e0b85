//! What a subscriber gets of what was published before it came.

use stentor::topic::{self, Position, Query};
use stentor::{Context, KeptPublication};

use super::Place;
use super::wish::{Since, Wish};

/// The past of a topic, as far as a subscriber asked for it and can have it.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// What follows is what was published since; `None` where no history is kept.
    pub(super) position: Option<Position>,
    /// From the oldest to the newest.
    pub(super) publications: Vec<KeptPublication>,
    /// Whether all that was missed is there, if that was asked for.
    pub(super) recovered: Option<bool>,
}

impl Past {
    /// Looks back. Of more than `most` bytes it is the newest that count, and they recover nothing:
    /// a subscriber with that much queued would be closed as too slow.
    pub(super) fn of(ctx: &mut Context<'_, Place>, topic: &str, wish: &Wish, most: usize) -> Self {
        let mut past = Self::default();
        if let Some(since) = &wish.since {
            past.recovered = Some(past.recover(ctx, topic, since, most));
        }
        if past.recovered != Some(true) {
            past.look_back(ctx, topic, wish.history, most);
        }
        if let (Some(position), Some(first)) = (&mut past.position, past.publications.first()) {
            position.offset = first.offset() - 1; // The first one of all has offset 1.
        }
        past
    }

    /// Everything since, or nothing; answers whether it is everything.
    fn recover(
        &mut self,
        ctx: &mut Context<'_, Place>,
        topic: &str,
        since: &Since,
        most: usize,
    ) -> bool {
        let Since::Position { epoch, offset } = since else {
            return false;
        };
        let since = topic::Since {
            epoch,
            offset: *offset,
        };
        let Ok(recovery) = ctx.recover(topic, &since, usize::MAX) else {
            return false;
        };
        let Some(publications) = recovery.publications else {
            return false;
        };
        if publications.iter().map(|p| cost(topic, p)).sum::<usize>() > most {
            return false;
        }
        self.position = Some(recovery.position);
        self.publications = publications;
        true
    }

    /// The last publications, `limit` at most.
    fn look_back(&mut self, ctx: &mut Context<'_, Place>, topic: &str, limit: usize, most: usize) {
        let query = Query {
            since: None,
            limit,
            reverse: true,
        };
        let Ok(history) = ctx.history(topic, &query) else {
            return; // None is kept.
        };
        self.position = Some(history.position);
        let mut sum = 0;
        self.publications = history.publications;
        let fitting = self.publications.iter().take_while(|publication| {
            sum += cost(topic, publication);
            sum <= most
        });
        let fitting = fitting.count();
        self.publications.truncate(fitting);
        self.publications.reverse();
    }
}

/// How many bytes a publication is, without its frame or header.
fn cost(topic: &str, publication: &KeptPublication) -> usize {
    publication.view(topic).message.payload().len()
}
