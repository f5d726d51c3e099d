//! Photos by example.

use crate::error::Result;
use crate::listener::{Listener, Looking, Stop};
use crate::photos::{DECODE_MB, Photos};
use crate::progress::Stage;
use crate::weights::Weights;
use seedling_core::data::{self, PhotoSource};
use seedling_core::encoder::Encoder;
use seedling_core::eval::extract::Look;
use seedling_core::eval::neighbours::{Exclude, search};
use seedling_core::eval::{Features, Metric, nearest};
use seedling_core::session::on_own_threads;
use std::sync::Arc;

/// A photo that is like another.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Match {
    /// Its name.
    pub name: String,
    /// How far it is, from 0 for the same.
    pub distance: f64,
}

/// A photo's features.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Embedding {
    /// Its name.
    pub name: String,
    /// What the weights see in it.
    pub values: Vec<f32>,
}

/// The photos as some weights see them.
#[derive(uniffi::Object)]
pub struct Search {
    encoder: Encoder,
    weights: Arc<Weights>,
    threads: usize,
    names: Vec<String>,
    features: Features,
    unreadable: i32,
}

#[uniffi::export]
impl Search {
    /// Looks at every photo once: some ten milliseconds each. Call it from a background thread. `stop`
    /// ends it early.
    #[uniffi::constructor]
    pub fn new(
        weights: Arc<Weights>,
        photos: Arc<Photos>,
        threads: i32,
        listener: Option<Arc<dyn Listener>>,
        stop: Option<Arc<Stop>>,
    ) -> Result<Arc<Search>> {
        let source = photos.source(DECODE_MB);
        let mut found = Search {
            encoder: weights.backbone()?,
            weights,
            threads: threads.max(0) as usize,
            names: Vec::new(),
            features: Features::default(),
            unreadable: 0,
        };
        let mut looking = Looking::new(Stage::Searching, listener, stop);
        let (seen, features, skipped) =
            found.look(&*source, |done| looking.looked(done, source.len()))?;
        found.names = seen.into_iter().map(|i| source.id(i).into()).collect();
        found.features = features;
        found.unreadable = skipped;
        Ok(Arc::new(found))
    }

    /// Photos that could not be read, and are not among the matches. Returns at once.
    pub fn unreadable(&self) -> i32 {
        self.unreadable
    }

    /// The `count` photos most like the one of that name, nearest first; none where there is no such
    /// photo. Takes a moment (a millisecond for a thousand photos).
    pub fn like(&self, name: String, count: i32) -> Vec<Match> {
        let Some(query) = self.names.iter().position(|known| *known == name) else {
            return Vec::new();
        };
        let near = nearest(
            &self.features,
            query,
            count.max(0) as usize,
            Metric::Euclidean,
        );
        near.into_iter()
            .map(|near| self.matched(near.index, near.squared))
            .collect()
    }

    /// The same for a picture that need not be among the photos, encoded. Takes as long as looking
    /// at a photo.
    pub fn like_encoded(&self, bytes: Vec<u8>, count: i32) -> Result<Vec<Match>> {
        let mut example = data::Photos::default();
        example.add_encoded("example", bytes)?;
        let (_, asked, _) = self.look(&example, |_| Ok(()))?;
        let found = search(
            &asked,
            &self.features,
            (count.max(0) as usize).min(self.features.rows),
            Metric::Euclidean,
            Exclude::Nothing,
            |_, near| near.to_vec(),
        )?;
        let near = found.into_iter().flatten();
        Ok(near.map(|n| self.matched(n.index, n.squared)).collect())
    }

    /// What the weights see in every photo. Takes as long as copying it.
    pub fn embeddings(&self) -> Vec<Embedding> {
        let rows = self.names.iter().zip(self.features.iter());
        rows.map(|(name, row)| Embedding {
            name: name.clone(),
            values: row.to_vec(),
        })
        .collect()
    }
}

impl Search {
    fn look(
        &self,
        source: &dyn PhotoSource,
        done: impl FnMut(usize) -> seedling_core::Result<()> + Send,
    ) -> Result<(Vec<usize>, Features, i32)> {
        let extractor = self.weights.extractor(&self.encoder, source);
        let all: Vec<usize> = (0..source.len()).collect();
        let found = on_own_threads(self.threads, || {
            extractor.features(&all, &Look::Plain, done)
        })??;
        Ok((found.photos, found.features, found.skipped.len() as i32))
    }

    fn matched(&self, index: usize, squared: f64) -> Match {
        Match {
            name: self.names[index].clone(),
            distance: squared.sqrt(),
        }
    }
}
