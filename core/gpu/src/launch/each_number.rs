//! Number by number.

use super::*;

impl<R: Runtime> Gpu<R> {
    pub(crate) fn read_into(&self, x: &Reading, out: &DeviceBuffer) {
        let n = lanes(x.channels);
        launch!(
            self,
            elementwise::materialize,
            elementwise_grid(out.len() / n),
            n,
            x.view(n),
            out.arg(),
            [x.dtype(), out.storage()]
        );
    }

    pub(crate) fn add_into(
        &self,
        x: &FusedInput<Self>,
        other: &FusedInput<Self>,
        act: Act,
        out: &DeviceBuffer,
    ) {
        let n = lanes(x.channels);
        launch!(
            self,
            elementwise::add,
            elementwise_grid(out.len() / n),
            n,
            reading(x).view(n),
            reading(other).view(n),
            out.arg(),
            act,
            out.storage()
        );
    }

    pub(crate) fn add_through(
        &self,
        dy: &DeviceBuffer,
        x: &FusedInput<Self>,
        other: &FusedInput<Self>,
        act: Act,
    ) {
        let n = lanes(x.channels);
        launch!(
            self,
            elementwise::add_back,
            elementwise_grid(dy.len() / n),
            n,
            dy.arg(),
            reading(x).view(n),
            reading(other).view(n),
            act,
            dy.storage()
        );
    }

    /// g through the activation of x, in place.
    pub(crate) fn through(&self, g: &DeviceBuffer, x: &Reading) {
        let n = lanes(x.channels);
        launch!(
            self,
            elementwise::through,
            elementwise_grid(g.len() / n),
            n,
            g.arg(),
            x.view(n),
            g.storage()
        );
    }

    pub(crate) fn times_images(
        &self,
        x: &DeviceBuffer,
        factors: &PerImage,
        channels: usize,
        out: &DeviceBuffer,
    ) {
        launch!(
            self,
            elementwise::scale_images,
            elementwise_grid(out.len()),
            x.arg(),
            factors.numbers.arg(),
            out.arg(),
            channels,
            factors.image_rows,
            out.storage()
        );
    }

    pub(crate) fn spread_rows(
        &self,
        x: &DeviceBuffer,
        out: &DeviceBuffer,
        channels: usize,
        rows: usize,
        factor: f32,
    ) {
        launch!(
            self,
            elementwise::spread,
            elementwise_grid(out.len()),
            x.arg(),
            out.arg(),
            channels,
            rows,
            factor,
            out.storage()
        );
    }

    pub fn rescale_by(&self, x: &DeviceBuffer, coefficients: &DeviceBuffer, channels: usize) {
        launch!(
            self,
            elementwise::rescale,
            elementwise_grid(x.len()),
            x.arg(),
            coefficients.arg(),
            channels,
            x.storage()
        );
    }

    pub(crate) fn times(&self, own: &DeviceBuffer, by: &DeviceBuffer) {
        launch!(
            self,
            elementwise::multiply,
            elementwise_grid(own.len()),
            own.arg(),
            by.arg(),
            own.storage()
        );
    }

    pub(crate) fn plus(&self, own: &DeviceBuffer, by: &DeviceBuffer) {
        launch!(
            self,
            elementwise::plus,
            elementwise_grid(own.len()),
            own.arg(),
            by.arg(),
            own.storage()
        );
    }

    pub(crate) fn add_to(
        &self,
        own: &DeviceBuffer,
        at: usize,
        (by, from): (&DeviceBuffer, usize),
        len: usize,
    ) {
        launch!(
            self,
            elementwise::add_to,
            elementwise_grid(len),
            own.arg(),
            at,
            by.arg(),
            from,
            len
        );
    }

    pub(crate) fn fill(&self, out: &DeviceBuffer, x: f32) {
        launch!(
            self,
            elementwise::fill,
            elementwise_grid(out.len()),
            out.arg(),
            x
        );
    }

    /// `len` numbers in runs of `run`: the i-th from place i * from_step goes to place i * to_step.
    pub fn copy_runs(
        &self,
        (from, from_at): (&DeviceBuffer, usize),
        from_step: usize,
        (to, to_at): (&DeviceBuffer, usize),
        to_step: usize,
        (run, len): (usize, usize),
    ) {
        if len == 0 {
            return;
        }
        launch!(
            self,
            elementwise::copy_runs,
            elementwise_grid(len),
            from.arg(),
            from_at,
            from_step,
            to.arg(),
            to_at,
            to_step,
            run,
            len
        );
    }

    pub fn gather_rows(
        &self,
        from: &DeviceBuffer,
        rows: &DeviceBuffer,
        to: &DeviceBuffer,
        dim: usize,
    ) {
        let n = lanes(dim);
        launch!(
            self,
            elementwise::gather_rows,
            elementwise_grid(to.len() / n),
            n,
            from.arg(),
            rows.arg(),
            to.arg(),
            dim / n
        );
    }

    pub fn scatter_rows(
        &self,
        from: &DeviceBuffer,
        places: &DeviceBuffer,
        to: &DeviceBuffer,
        dim: usize,
    ) {
        launch!(
            self,
            elementwise::scatter_rows,
            elementwise_grid(from.len()),
            from.arg(),
            places.arg(),
            to.arg(),
            dim
        );
    }
}
