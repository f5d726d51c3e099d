//! Matrix products, forward and as a weight's gradient: on tensor cores where a device has them for the dtypes
//! at hand.

use super::*;
use cubecl::ir::ElemType;
use cubecl::ir::features::MmaConfig;

/// Numbers that tensor cores multiply.
#[derive(Clone, Copy, Debug)]
struct Fragments(FloatKind);

impl Fragments {
    fn dtype(self) -> StorageType {
        StorageType::Scalar(ElemType::Float(self.0))
    }

    /// What shared memory has them in.
    fn stored(self) -> StorageType {
        match self.0 {
            FloatKind::TF32 => StorageType::Scalar(ElemType::Float(FloatKind::F32)),
            _ => self.dtype(),
        }
    }

    fn step(self) -> usize {
        match self.0 {
            FloatKind::TF32 => 8,
            _ => 16,
        }
    }
}

/// How the sides of a product lie.
fn lines((a, b): (&Side, &Side)) -> Lines {
    Lines {
        a_along_k: a.map.along_k(),
        b_along_k: b.map.along_k(),
        gradient: a.reading.how.is_gradient(),
    }
}

impl Tile {
    /// How the rows of a segment are cut: into whole tiles, for about as many cubes as keep a GPU busy.
    fn pieces(self, segment: usize, segments: usize, columns: usize) -> Pieces {
        let others = columns.div_ceil(self.wide()) * segments.max(1);
        let pieces = (tensor_product::CUBES / others).clamp(1, 512);
        let tiles = segment.div_ceil(self.tall());
        Pieces::of(segment, tiles.div_ceil(pieces).max(1) * self.tall())
    }
}

/// What tensor cores are to do.
struct TensorWork {
    fragments: Fragments,
    tile: Tile,
    rows: Pieces,
    /// Segments of the rows, or pieces of k, and how much of k is in one.
    depth: (usize, usize),
}

/// How many neighbors can be read at once, where there are so many in a row.
fn width_of(channels: usize) -> usize {
    [8, 4, 2]
        .into_iter()
        .find(|n| channels.is_multiple_of(*n))
        .unwrap_or(1)
}

impl Side<'_> {
    /// Neighbors that are read at once on the way to tensor cores.
    fn width(&self) -> usize {
        match self.map {
            // A tap apart.
            OperandLayout::Weight | OperandLayout::WeightBack => 1,
            _ => width_of(self.reading.channels).min(width_of(self.reading.offset)),
        }
    }
}

impl<R: Runtime> Gpu<R> {
    /// What tensor cores take this product in, if they do: 16 bits where anything is stored so.
    fn fragments(&self, (a, b): (&Side, &Side), out: &DeviceBuffer) -> Option<Fragments> {
        let dtypes = [a.reading.a.dtype(), b.reading.a.dtype(), out.dtype()];
        let halved = dtypes.into_iter().find(|dtype| *dtype != FloatKind::F32);
        let dtype = match (halved, self.tf32) {
            (Some(dtype), _) => dtype,
            (None, true) => FloatKind::TF32,
            (None, false) => return None,
        };
        self.multiplies(dtype).then_some(Fragments(dtype))
    }

    /// Whether the device has tensor cores for numbers of a dtype, and the shared memory that they take here.
    pub(crate) fn multiplies(&self, dtype: FloatKind) -> bool {
        let fragments = Fragments(dtype);
        let config = MmaConfig {
            a_type: fragments.dtype(),
            b_type: fragments.dtype(),
            cd_type: StorageType::Scalar(ElemType::Float(FloatKind::F32)),
            m: 16,
            n: 16,
            k: fragments.step() as u32,
        };
        let device = self.client.properties();
        let room = device.hardware.max_shared_memory_size >= tensor_product::SHARED_BYTES;
        room && device.features.matmul.cmma.contains(&config)
    }

    fn operand<F: Float, N: Size>(&self, side: &Side, n: usize) -> OperandLaunch<F, N, R> {
        OperandLaunch::new(
            side.reading.view(n),
            side.window.as_ref().map(windows).into(),
            side.channels,
            side.taps,
            side.map,
        )
    }

    fn end<F: Float, N: Size>(&self, end: &Finish, n: usize) -> EndLaunch<F, N, R> {
        EndLaunch::new(
            end.bias.map(|(bias, _)| bias.arg()).into(),
            end.bias.map_or(0, |(_, at)| at),
            end.shortcut.map(|shortcut| shortcut.arg()).into(),
            end.through.map(|x| x.view(n)).into(),
            end.factor,
            end.gate,
        )
    }

    /// out (i, j) = sum over k.
    pub(crate) fn product(
        &self,
        sizes: MatMul,
        sides: (Side, Side),
        end: &Finish,
        out: &DeviceBuffer,
    ) -> Result<()> {
        self.product_and_sums(sizes, sides, end, out, (ColumnSums::None, 1))
            .map(drop)
    }

    /// The same, and sums over the columns of so many segments of the rows, where they are taken on the way:
    /// parts (segments, pieces, sums, j).
    pub(crate) fn product_and_sums(
        &self,
        sizes: MatMul,
        (a, b): (Side, Side),
        end: &Finish,
        out: &DeviceBuffer,
        (column_sums, segments): (ColumnSums, usize),
    ) -> Result<Option<(DeviceBuffer, Pieces)>> {
        let MatMul { m: i, n: j, k } = sizes;
        let Some(fragments) = self.fragments((&a, &b), out) else {
            self.product_in_pieces(sizes, (a, b), end, out, k.max(1));
            return Ok(None);
        };
        let tile = Tile::of_rows((j, k), fragments.step(), lines((&a, &b)));
        let segment = i / segments.max(1);
        let rows = tile.pieces(segment, segments, j);
        let parts = match column_sums {
            ColumnSums::None => None,
            _ => Some(self.alloc(segments * rows.count * column_sums.count() * j)?),
        };
        let work = TensorWork {
            fragments,
            tile,
            rows,
            depth: (segments, k.max(1)),
        };
        self.tensor_product(sizes, (a, b), end, out, (parts.as_ref(), column_sums), work);
        Ok(parts.map(|parts| (parts, rows)))
    }

    fn tensor_product(
        &self,
        MatMul { m: i, n: j, k }: MatMul,
        (a, b): (Side, Side),
        end: &Finish,
        out: &DeviceBuffer,
        (parts, column_sums): (Option<&DeviceBuffer>, ColumnSums),
        work: TensorWork,
    ) {
        if i == 0 || j == 0 {
            return;
        }
        let TensorWork {
            fragments,
            tile,
            rows,
            depth: (z, piece),
        } = work;
        let count = CubeCount::Static(j.div_ceil(tile.wide()) as u32, rows.count as u32, z as u32);
        let (na, nb, nc) = (a.width(), b.width(), width_of(j));
        let dtypes = [
            a.reading.dtype(),
            b.reading.dtype(),
            out.storage(),
            fragments.stored(),
            fragments.dtype(),
        ];
        launch!(
            self,
            tensor_product::product,
            (count, CubeDim::new_1d(tensor_product::UNITS as u32)),
            na,
            nb,
            nc,
            self.operand(&a, na),
            self.operand(&b, nb),
            self.end(end, nc),
            out.arg(),
            parts.map(|parts| parts.arg()).into(),
            SizesLaunch::new(i, j, k, piece),
            rows.arg(),
            tile,
            column_sums,
            dtypes,
        );
    }

    /// Results of several pieces of k lie behind each other; `piece` is a multiple of eight, or all of k.
    pub(crate) fn product_in_pieces(
        &self,
        MatMul { m: i, n: j, k }: MatMul,
        (a, b): (Side, Side),
        end: &Finish,
        out: &DeviceBuffer,
        piece: usize,
    ) {
        if i == 0 || j == 0 {
            return;
        }
        let pieces = k.div_ceil(piece).max(1);
        if let Some(fragments) = self.fragments((&a, &b), out) {
            let tile = match a.map.along_k() {
                true => Tile::of_rows((j, k), fragments.step(), lines((&a, &b))),
                false => Tile::of_sums((i, j), fragments.step(), lines((&a, &b))),
            };
            let tile = Tile {
                once: false,
                pieces_of_k: true,
                ..tile
            };
            let work = TensorWork {
                fragments,
                tile,
                rows: Pieces::of(i, tile.tall()),
                depth: (pieces, piece),
            };
            let none = (None, ColumnSums::None);
            let sizes = MatMul { m: i, n: j, k };
            return self.tensor_product(sizes, (a, b), end, out, none, work);
        }
        let (rows, columns) = (results(i), results(j));
        let dtypes = [a.reading.dtype(), b.reading.dtype(), out.storage()];
        let tiles = j.div_ceil(SIDE * columns) * i.div_ceil(SIDE * rows);
        launch!(
            self,
            product::product,
            (cubes_of_pieces(tiles, pieces), CubeDim::new_1d(UNITS)),
            self.operand(&a, 1),
            self.operand(&b, 1),
            self.end(end, 1),
            out.arg(),
            SizesLaunch::new(i, j, k, piece),
            rows,
            columns,
            dtypes,
        );
    }

    /// Adds the product over `k` rows to the gradient of a weight (outputs, inputs, taps).
    pub(crate) fn weight_gradient(
        &self,
        sizes: MatMul,
        sides: (Side, Side),
        grads: &mut DeviceBuffer,
        range: &Range<usize>,
        (inputs, taps): (usize, usize),
    ) -> Result<()> {
        let MatMul { m: i, n: j, k } = sizes;
        // Enough cubes for a large GPU, and parts that are no larger than what they are summed of.
        let pieces = match self.fragments((&sides.0, &sides.1), grads) {
            Some(fragments) => {
                let tile = Tile::of_sums((i, j), fragments.step(), lines((&sides.0, &sides.1)));
                let tiles = i.div_ceil(tile.tall()) * j.div_ceil(tile.wide());
                (tensor_product::CUBES / tiles).clamp(1, k.div_ceil(4 * tile.depth()).max(1))
            }
            None => {
                let tiles = i.div_ceil(SIDE * results(i)) * j.div_ceil(SIDE * results(j));
                (1024 / tiles).clamp(1, k.div_ceil(256).max(1))
            }
        };
        let piece = k.div_ceil(pieces).max(1);
        let pieces = k.div_ceil(piece).max(1);
        let parts = self.alloc(pieces * i * j)?;
        self.product_in_pieces(sizes, sides, &Finish::default(), &parts, piece);
        self.add_parts(&parts, grads, range, (inputs, taps));
        Ok(())
    }

    /// Adds parts (pieces, out, tap, in) to the gradient of a weight (out, in, taps).
    pub(crate) fn add_parts(
        &self,
        parts: &DeviceBuffer,
        grads: &DeviceBuffer,
        range: &Range<usize>,
        (inputs, taps): (usize, usize),
    ) {
        let len = range.len();
        launch!(
            self,
            product::add_parts,
            (cubes(len.div_ceil(product::LANES)), CubeDim::new_1d(UNITS)),
            parts.arg(),
            grads.arg(),
            range.start,
            len,
            parts.len() / len,
            inputs,
            taps,
            1.0 / self.loss_scale,
            taps == 1
        );
    }
}
