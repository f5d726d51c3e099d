//! Photos by example.

use crate::error::{Result, SeedlingError};
use crate::listener::{ExtractionProgress, Listener, Stop};
use crate::photos::{DECODE_MB, Photos};
use crate::progress::Stage;
use crate::weights::Weights;
use seedling_core::data::{self, PhotoSource};
use seedling_core::encoder::FeatureNet;
use seedling_core::eval::neighbors::{Exclude, Neighbor, search};
use seedling_core::eval::tta::{self, FeatureModel};
use seedling_core::eval::{Features, Metric, nearest};
use seedling_core::index::{self, AlbumIndex, StoredFeatures};
use seedling_core::session::on_own_threads;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

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
    /// What the search compares.
    pub values: Vec<f32>,
}

/// How a search extracts features.
#[derive(Clone, Debug, uniffi::Record)]
pub struct SearchSettings {
    /// Threads; 0 is one per CPU.
    #[uniffi(default = 0)]
    pub threads: i32,
    /// Views of each photo whose features are averaged (test-time augmentation): 1, 2 (with its mirror image)
    /// or 8 (both at four sizes), each some ten milliseconds; 0 is 2 where the weights were fitted to an album,
    /// 1 otherwise.
    #[uniffi(default = 0)]
    pub tta_views: i32,
    /// A file of the app's that keeps what was seen: extraction continues where it was stopped or killed, and
    /// only photos that are new are processed the next time.
    #[uniffi(default = None)]
    pub store: Option<String>,
}

/// The photos as some weights see them. Weights that were fitted to an album compare photos by way of their
/// neighbors, too (diffusion over the album's graph); others by the distance of their features.
#[derive(uniffi::Object)]
pub struct Search {
    /// With their weights, one beside the other.
    networks: Vec<(Arc<dyn FeatureNet>, Arc<Weights>)>,
    threads: usize,
    tta_views: usize,
    diffuses: bool,
    stored: Mutex<StoredFeatures>,
    indexed: RwLock<IndexedPhotos>,
}

/// What is searched.
#[derive(Default)]
struct IndexedPhotos {
    names: Vec<String>,
    unreadable: i32,
    searched: Searched,
}

/// Features as they are, or diffused.
enum Searched {
    Plain(Features),
    Diffused(AlbumIndex),
}

impl Default for Searched {
    fn default() -> Searched {
        Searched::Plain(Features::default())
    }
}

#[uniffi::export]
impl Search {
    /// Extracts features of every photo: some ten milliseconds a view. Call it from a background thread. `stop`
    /// ends it early; what was seen is then in the settings' store, where there is one. With `beside`, the
    /// features of a second network stand beside those of the first (Small and Large together).
    #[uniffi::constructor]
    pub fn new(
        weights: Arc<Weights>,
        photos: Arc<Photos>,
        settings: SearchSettings,
        beside: Option<Arc<Weights>>,
        listener: Option<Arc<dyn Listener>>,
        stop: Option<Arc<Stop>>,
    ) -> Result<Arc<Search>> {
        let diffuses = weights.has_layer()?;
        let tta_views = match settings.tta_views {
            0 => 1 + usize::from(diffuses),
            tta_views => usize::try_from(tta_views).unwrap_or(0),
        };
        tta::check(tta_views).map_err(|error| SeedlingError::Settings {
            reason: error.to_string(),
        })?;
        let all = std::iter::once(weights).chain(beside);
        let networks = all
            .map(|weights| Ok((weights.network()?, weights)))
            .collect::<Result<Vec<_>>>()?;
        let dim = networks.iter().map(|(net, _)| net.feature_dim()).sum();
        let files = networks.iter().map(|(_, weights)| &weights.file);
        let model = index::models_key(
            files.map(|file| (file, file.metadata.image_size)),
            tta_views,
        )?;
        let store = settings.store.as_deref().map(Path::new);
        let search = Search {
            networks,
            threads: settings.threads.max(0) as usize,
            tta_views,
            diffuses,
            stored: Mutex::new(StoredFeatures::open(store, &model, dim)?),
            indexed: RwLock::default(),
        };
        search.refresh(photos, listener, stop)?;
        Ok(Arc::new(search))
    }

    /// Searches these photos from now on: extracts features of those that are new, and forgets those that are
    /// gone. A photo is known by its name. Takes some ten milliseconds a view of each new photo, and then a
    /// second or two for twenty thousand. Call it from a background thread.
    pub fn refresh(
        &self,
        photos: Arc<Photos>,
        listener: Option<Arc<dyn Listener>>,
        stop: Option<Arc<Stop>>,
    ) -> Result<()> {
        let source = photos.source(DECODE_MB);
        let mut progress = ExtractionProgress::new(Stage::Searching, listener, stop);
        let mut guard = self.stored();
        let stored: &mut StoredFeatures = &mut guard;
        let models = self.models();
        on_own_threads(self.threads, || {
            stored.extract(&models, self.tta_views, &*source, |done, total| {
                progress.photos(done, total)
            })
        })??;
        stored.forget_others(&*source)?;
        let (seen, features) = stored.features_of(&*source);
        let unreadable = stored.skipped(&*source).len() as i32;
        let searched = match self.diffuses {
            true => {
                let index = on_own_threads(self.threads, || AlbumIndex::new(&features))??;
                Searched::Diffused(index)
            }
            false => Searched::Plain(features),
        };
        let indexed = IndexedPhotos {
            names: seen.into_iter().map(|i| source.id(i).into()).collect(),
            unreadable,
            searched,
        };
        *self.indexed.write().unwrap_or_else(PoisonError::into_inner) = indexed;
        Ok(())
    }

    /// Photos that could not be read, and are not among the matches. Returns at once.
    pub fn unreadable(&self) -> i32 {
        self.indexed().unreadable
    }

    /// The `count` photos most like the one of that name, nearest first; none where there is no such
    /// photo. Takes a moment (a millisecond for a thousand photos).
    pub fn like(&self, name: String, count: i32) -> Vec<Match> {
        let indexed = self.indexed();
        let Some(query) = indexed.names.iter().position(|known| *known == name) else {
            return Vec::new();
        };
        let count = count.max(0) as usize;
        indexed.matched(match &indexed.searched {
            Searched::Plain(features) => nearest(features, query, count, Metric::Euclidean),
            Searched::Diffused(index) => index.like(query, count),
        })
    }

    /// The same for a picture that need not be among the photos, encoded. Takes as long as extracting features
    /// at a photo.
    pub fn like_encoded(&self, bytes: Vec<u8>, count: i32) -> Result<Vec<Match>> {
        let mut example = data::Photos::default();
        example.add_encoded("example", bytes)?;
        let models = self.models();
        let asked = on_own_threads(self.threads, || {
            tta::extract(&models, self.tta_views, &example, &[0], |_| Ok(()))
        })??;
        asked.check(1)?;
        let indexed = self.indexed();
        let count = (count.max(0) as usize).min(indexed.names.len());
        let found = match &indexed.searched {
            Searched::Diffused(index) => index.search(&asked.features, count)?,
            Searched::Plain(features) => search(
                &asked.features,
                features,
                count,
                Metric::Euclidean,
                Exclude::Nothing,
                |_, near| near.to_vec(),
            )?,
        };
        Ok(indexed.matched(found.into_iter().flatten().collect()))
    }

    /// What is compared, of every photo. Takes as long as copying it.
    pub fn embeddings(&self) -> Vec<Embedding> {
        let indexed = self.indexed();
        let rows = match &indexed.searched {
            Searched::Plain(features) => features,
            Searched::Diffused(index) => index.rows(),
        };
        let rows = indexed.names.iter().zip(rows.iter());
        rows.map(|(name, row)| Embedding {
            name: name.clone(),
            values: row.to_vec(),
        })
        .collect()
    }
}

impl Search {
    fn models(&self) -> Vec<FeatureModel<'_>> {
        let networks = self.networks.iter();
        networks
            .map(|(net, weights)| weights.model(&**net))
            .collect()
    }

    fn stored(&self) -> MutexGuard<'_, StoredFeatures> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn indexed(&self) -> std::sync::RwLockReadGuard<'_, IndexedPhotos> {
        self.indexed.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IndexedPhotos {
    fn matched(&self, near: Vec<Neighbor>) -> Vec<Match> {
        let near = near.into_iter().map(|near| Match {
            name: self.names[near.index].clone(),
            distance: near.squared.sqrt(),
        });
        near.collect()
    }
}
