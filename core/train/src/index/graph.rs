//! The index of an album: features of its photos diffused over the graph of their nearest neighbors, so that
//! a search finds what is near by way of other photos too.
//!
//! Diffusion for retrieval (Donoser and Bischof 2013; Iscen et al. 2017): with W the cosines of photos of
//! which one is among the K nearest of the other, and D its row sums,
//!
//! ```text
//! S = D^(-1/2) W D^(-1/2)        y = (I - alpha S)^(-1) z
//! ```
//!
//! Rows of y, scaled to unit length, are searched. A query from outside is one more node, tied to its
//! nearest photos: q + alpha sum_j S_qj y_j. Costs and gains stand in docs/results.md.

use crate::{Error, Result};
use rayon::prelude::*;
use seedling_ssl::eval::Features;
use seedling_ssl::eval::Metric;
use seedling_ssl::eval::Neighbor;
use seedling_ssl::eval::features::squared_norm;
use seedling_ssl::eval::neighbors::{Exclude, order, search};

/// Nearest photos that a photo is tied to.
const NEIGHBORS: usize = 10;
/// Nearest photos that a query is tied to.
const QUERY_NEIGHBORS: usize = 5;
/// How far diffusion reaches.
const ALPHA: f64 = 0.4;
/// Rounds of y <- z + alpha S y: what is left is below alpha^ROUNDS, a rounding of f32.
const ROUNDS: usize = 18;

/// Squared distance below which a query is a photo of the album: rounding.
const SAME: f64 = 1e-6;

/// Photos to be searched. 20,000 photos of 128 numbers take 90 MB while it is made (tests/tests/memory.rs), and a
/// third after.
#[derive(Clone, Debug, PartialEq)]
pub struct AlbumIndex {
    /// Unit rows, as the network sees the photos.
    features: Features,
    /// The nearest others of each row, nearest first.
    near: Vec<Vec<Neighbor>>,
    /// Row sums of W.
    degrees: Vec<f64>,
    /// y, in unit rows and their lengths.
    diffused: Features,
    lengths: Vec<f64>,
}

impl AlbumIndex {
    /// Of photos with these features, which are scaled to unit length. Bits depend on no thread.
    ///
    /// # Errors
    /// [`Error::Training`] where a feature is not finite.
    pub fn new(features: &Features) -> Result<AlbumIndex> {
        let mut index = AlbumIndex {
            features: Features {
                rows: 0,
                dim: features.dim,
                values: Vec::new(),
            },
            near: Vec::new(),
            degrees: Vec::new(),
            diffused: Features::default(),
            lengths: Vec::new(),
        };
        index.add(features)?;
        Ok(index)
    }

    /// Photos in it.
    pub fn len(&self) -> usize {
        self.features.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.features.rows == 0
    }

    /// The diffused rows, of unit length.
    pub fn rows(&self) -> &Features {
        &self.diffused
    }

    /// Adds photos behind those that are there: the same to the bit as an index made of all, in the time
    /// that comparing the new ones with all takes.
    ///
    /// # Errors
    /// [`Error::Shape`] where features are of another length, [`Error::Training`] where one is not finite.
    pub fn add(&mut self, features: &Features) -> Result<()> {
        if features.dim != self.features.dim {
            return Err(Error::Shape {
                tensor: "features".into(),
                expected: vec![features.rows, self.features.dim],
                got: vec![features.rows, features.dim],
            });
        }
        features.check_finite()?;
        let new = features.normalized();
        let known = self.features.clone();
        self.features.rows += new.rows;
        self.features.values.extend_from_slice(&new.values);
        // Those that were there may have new neighbors.
        if known.rows > 0 && new.rows > 0 {
            let found = nearest(&known, &new, NEIGHBORS)?;
            for (near, others) in self.near.iter_mut().zip(found) {
                near.extend(others.into_iter().map(|other| Neighbor {
                    index: known.rows + other.index,
                    ..other
                }));
                near.sort_by(order);
                near.truncate(NEIGHBORS);
            }
        }
        let rows: Vec<usize> = (known.rows..self.features.rows).collect();
        let found = self.others(&rows)?;
        self.near.extend(found);
        self.diffuse();
        Ok(())
    }

    /// Takes photos out; those behind them move up. The same to the bit as an index made without them.
    ///
    /// # Errors
    /// [`Error::Shape`] where there is no such row.
    pub fn remove(&mut self, rows: &[usize]) -> Result<()> {
        let n = self.len();
        let mut gone = vec![false; n];
        for &row in rows {
            *gone.get_mut(row).ok_or_else(|| Error::Shape {
                tensor: "row of the index".into(),
                expected: vec![n],
                got: vec![row],
            })? = true;
        }
        let kept: Vec<usize> = (0..n).filter(|&row| !gone[row]).collect();
        let mut place = vec![usize::MAX; n];
        kept.iter()
            .enumerate()
            .for_each(|(new, &old)| place[old] = new);
        self.features = self.features.select(&kept);
        let mut near = Vec::with_capacity(kept.len());
        let mut torn = Vec::new();
        for (new, &old) in kept.iter().enumerate() {
            let mut found = std::mem::take(&mut self.near[old]);
            if found.iter().any(|other| gone[other.index]) {
                torn.push(new);
            }
            found.retain(|other| !gone[other.index]);
            found
                .iter_mut()
                .for_each(|other| other.index = place[other.index]);
            near.push(found);
        }
        self.near = near;
        let found = self.others(&torn)?;
        for (row, found) in torn.into_iter().zip(found) {
            self.near[row] = found;
        }
        self.diffuse();
        Ok(())
    }

    /// Queries from outside as the index compares them: unit rows.
    ///
    /// # Errors
    /// As [`AlbumIndex::add`].
    pub fn queries(&self, features: &Features) -> Result<Features> {
        let mut queries = features.normalized();
        if self.is_empty() {
            return Ok(queries);
        }
        let near = nearest(&queries, &self.features, QUERY_NEIGHBORS)?;
        let dim = queries.dim;
        for (row, near) in queries.values.chunks_exact_mut(dim.max(1)).zip(near) {
            // A photo of the album is known already.
            if let Some(same) = near.first().filter(|same| same.squared < SAME) {
                row.copy_from_slice(self.diffused.row(same.index));
                continue;
            }
            let weights: Vec<f64> = near.iter().map(|other| other.cosine().max(0.0)).collect();
            let degree: f64 = weights.iter().sum();
            for (other, w) in near.iter().zip(weights) {
                if w > 0.0 {
                    // A photo alone in the index has no ties of its own.
                    let theirs = self.degrees[other.index].max(w);
                    let tie = w / (degree * theirs).sqrt();
                    let scale = ALPHA * tie * self.lengths[other.index];
                    let pairs = row.iter_mut().zip(self.diffused.row(other.index));
                    pairs.for_each(|(q, &y)| *q = (f64::from(*q) + scale * f64::from(y)) as f32);
                }
            }
        }
        Ok(queries.normalized())
    }

    /// For each query from outside the `k` photos most like it, nearest first.
    ///
    /// # Errors
    /// As [`AlbumIndex::add`].
    pub fn search(&self, features: &Features, k: usize) -> Result<Vec<Vec<Neighbor>>> {
        nearest(&self.queries(features)?, &self.diffused, k)
    }

    /// The `k` photos most like the one in row `row`, itself left out, nearest first; none where there is no
    /// such row.
    pub fn like(&self, row: usize, k: usize) -> Vec<Neighbor> {
        seedling_ssl::eval::nearest(&self.diffused, row, k, Metric::Euclidean)
    }

    /// The nearest others of these rows.
    fn others(&self, rows: &[usize]) -> Result<Vec<Vec<Neighbor>>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let queries = self.features.select(rows);
        let found = nearest(&queries, &self.features, NEIGHBORS + 1)?;
        let own = found.into_iter().zip(rows).map(|(mut near, &row)| {
            near.retain(|other| other.index != row);
            near.truncate(NEIGHBORS);
            near
        });
        Ok(own.collect())
    }

    /// y, from features and neighbors.
    fn diffuse(&mut self) {
        let (n, dim) = (self.features.rows, self.features.dim);
        // Tied are photos of which either is near the other.
        let mut ties: Vec<Vec<(usize, f64)>> = vec![Vec::new(); n];
        for (row, near) in self.near.iter().enumerate() {
            for other in near {
                let w = other.cosine();
                if w > 0.0 {
                    ties[row].push((other.index, w));
                    ties[other.index].push((row, w));
                }
            }
        }
        ties.par_iter_mut().for_each(|ties| {
            ties.sort_by_key(|(other, _)| *other);
            ties.dedup_by_key(|(other, _)| *other);
        });
        self.degrees = ties
            .iter()
            .map(|ties| ties.iter().map(|(_, w)| w).sum())
            .collect();
        let degrees = &self.degrees;
        ties.par_iter_mut().enumerate().for_each(|(row, ties)| {
            for (other, w) in ties {
                *w *= ALPHA / (degrees[row] * degrees[*other]).sqrt();
            }
        });
        let mut y = self.features.values.clone();
        let mut next = vec![0.0f32; y.len()];
        for _ in 0..ROUNDS {
            next.par_chunks_mut(dim.max(1))
                .enumerate()
                .for_each(|(row, out)| {
                    out.copy_from_slice(self.features.row(row));
                    for &(other, w) in &ties[row] {
                        let from = &y[other * dim..(other + 1) * dim];
                        let w = w as f32;
                        out.iter_mut().zip(from).for_each(|(o, f)| *o += w * f);
                    }
                });
            std::mem::swap(&mut y, &mut next);
        }
        let y = Features {
            rows: n,
            dim,
            values: y,
        };
        self.lengths = y.iter().map(|row| squared_norm(row).sqrt()).collect();
        self.diffused = y.normalized();
    }
}

/// Of unit rows.
fn nearest(queries: &Features, base: &Features, k: usize) -> Result<Vec<Vec<Neighbor>>> {
    let (metric, exclude) = (Metric::Euclidean, Exclude::Nothing);
    search(
        queries,
        base,
        k.min(base.rows),
        metric,
        exclude,
        |_, near| near.to_vec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::{Purpose, Rng};
    use seedling_ssl::eval::panel;

    fn dataset(photos: usize, dim: usize, noise: f32) -> (Features, Vec<u32>) {
        let mut rng = Rng::new(6, Purpose::Measure, 0, 0);
        let mut values = Vec::new();
        for i in 0..photos {
            for j in 0..dim {
                values.push(f32::from(u8::from(j == i % 5)) + noise * rng.normal());
            }
        }
        let labels = (0..photos).map(|i| (i % 5) as u32).collect();
        (Features::new(photos, dim, values).unwrap(), labels)
    }

    /// (I - alpha S)^-1 z by Gaussian elimination.
    fn solved(features: &Features) -> Features {
        let z = features.normalized();
        let n = z.rows;
        let mut w = vec![0.0f64; n * n];
        for i in 0..n {
            let mut others: Vec<(f64, usize)> = (0..n)
                .filter(|&j| j != i)
                .map(|j| {
                    let pairs = z.row(i).iter().zip(z.row(j));
                    (pairs.map(|(a, b)| (a * b) as f64).sum(), j)
                })
                .collect();
            others.sort_by(|a, b| b.0.total_cmp(&a.0));
            for &(cosine, j) in others.iter().take(NEIGHBORS) {
                w[i * n + j] = cosine.max(0.0);
                w[j * n + i] = cosine.max(0.0);
            }
        }
        let degree: Vec<f64> = w.chunks(n).map(|row| row.iter().sum()).collect();
        let mut a: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                let row = (0..n).map(|j| {
                    let tie = w[i * n + j] / (degree[i] * degree[j]).sqrt();
                    f64::from(u8::from(i == j)) - ALPHA * tie
                });
                row.chain(z.row(i).iter().map(|&x| x as f64)).collect()
            })
            .collect();
        for i in 0..n {
            let pivot = a[i].clone();
            for (k, row) in a.iter_mut().enumerate() {
                if k != i {
                    let f = row[i] / pivot[i];
                    row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= f * p);
                }
            }
        }
        let values = (0..n)
            .flat_map(|i| a[i][n..].iter().map(move |x| (*x, i)))
            .map(|(x, i)| (x / a[i][i]) as f32);
        Features::new(n, z.dim, values.collect())
            .unwrap()
            .normalized()
    }

    #[test]
    fn rows_are_the_linear_systems_solution() {
        let (features, _) = dataset(60, 8, 0.5);
        let index = AlbumIndex::new(&features).unwrap();
        for (a, b) in index.rows().values.iter().zip(&solved(&features).values) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn photos_that_come_and_go_leave_the_same_bits_on_any_number_of_threads() {
        let (all, _) = dataset(400, 16, 0.6);
        let on = |threads, work: &(dyn Fn() -> AlbumIndex + Sync)| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(work)
        };
        let whole = on(1, &|| AlbumIndex::new(&all).unwrap());
        let pieces = on(4, &|| {
            let mut index = AlbumIndex::new(&all.select(&(0..7).collect::<Vec<_>>())).unwrap();
            for range in [7..8, 8..300, 300..300, 300..400] {
                index.add(&all.select(&range.collect::<Vec<_>>())).unwrap();
            }
            index
        });
        assert!(whole == pieces);
        let gone = [0, 5, 5, 399, 200, 17];
        let mut fewer = whole.clone();
        fewer.remove(&gone).unwrap();
        let kept: Vec<usize> = (0..400).filter(|row| !gone.contains(row)).collect();
        assert!(fewer == AlbumIndex::new(&all.select(&kept)).unwrap());
        assert!(fewer.remove(&[395]).is_err());
        // To nothing, and back.
        fewer.remove(&(0..395).collect::<Vec<_>>()).unwrap();
        assert!(fewer.is_empty() && fewer.like(0, 3).is_empty());
        fewer.add(&all).unwrap();
        assert!(fewer == whole);
    }

    #[test]
    fn searches_gain_inside_and_outside() {
        let (features, labels) = dataset(600, 24, 0.35);
        let rows = |from: usize| -> Vec<usize> { (from..600).step_by(2).collect() };
        let labels_of = |rows: &[usize]| rows.iter().map(|&r| labels[r]).collect::<Vec<_>>();
        let (inside, outside) = (rows(0), rows(1));
        let index = AlbumIndex::new(&features.select(&inside)).unwrap();
        let (plain, known) = (features.select(&inside), labels_of(&inside));
        let map = |features: &Features| {
            let found = panel(features, &known, 0).unwrap();
            found.mean_average_precision.unwrap()
        };
        assert!(map(index.rows()) > map(&plain) + 3.0);
        // Queries: right among the first ten.
        let asked = features.select(&outside);
        let right = |found: Vec<Vec<Neighbor>>| {
            let pairs = found.iter().zip(labels_of(&outside));
            let right = pairs.flat_map(|(near, label)| {
                near.iter()
                    .map(|n| known[n.index] == label)
                    .collect::<Vec<_>>()
            });
            right.filter(|right| *right).count()
        };
        let before = right(nearest(&asked.normalized(), &plain.normalized(), 10).unwrap());
        let after = right(index.search(&asked, 10).unwrap());
        assert!(after > before, "{after} {before}");
        assert_eq!(index.like(3, 4).len(), 4);
        // A photo of the album finds itself, and then what its name would find.
        let found = index.search(&plain.select(&[3]), 5).unwrap();
        assert_eq!(found[0][0].index, 3);
        assert!(found[0][0].squared < 1e-9);
        assert_eq!(found[0][1..], index.like(3, 4));
        assert!(index.like(3, 4).iter().all(|near| near.index != 3));
    }

    #[test]
    fn few_equal_and_broken_photos() {
        let same = Features::new(30, 3, [0.2, 0.4, -1.0].repeat(30)).unwrap();
        let index = AlbumIndex::new(&same).unwrap();
        assert!(index.rows().check_finite().is_ok());
        let zeros = Features::new(3, 2, vec![0.0; 6]).unwrap();
        let index = AlbumIndex::new(&zeros).unwrap();
        assert!(index.rows().check_finite().is_ok());
        assert_eq!(index.search(&zeros, 9).unwrap()[0].len(), 3);
        let one = AlbumIndex::new(&same.select(&[0])).unwrap();
        assert_eq!(one.search(&same.select(&[1]), 5).unwrap()[0].len(), 1);
        let mut broken = AlbumIndex::new(&same).unwrap();
        assert!(
            broken
                .add(&Features::new(1, 3, vec![f32::NAN; 3]).unwrap())
                .is_err()
        );
        assert!(broken.add(&zeros).is_err());
        assert_eq!(broken.len(), 30);
    }
}
