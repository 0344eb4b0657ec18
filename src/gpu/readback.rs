//! Waiting for the device, and bringing bytes back from it. Nothing here blocks in a browser.

use super::ledger::Buffer;
use super::{Category, Error, Gpu};
use futures_channel::oneshot;

impl Gpu {
    /// Waits until everything submitted so far is done.
    pub async fn wait(&self) -> Result<(), Error> {
        self.check()?;
        let (done, wait) = oneshot::channel();
        self.queue().on_submitted_work_done(move || {
            // The receiver is gone when the wait was dropped; then nobody needs to know.
            let _ = done.send(());
        });
        self.poll()?;
        let gone = wait.await.is_err();
        self.check()?;
        if gone { Err(Error::Lost { reason: "the queue stopped".into() }) } else { Ok(()) }
    }

    /// Bytes `offset..offset + len` of a buffer, both multiples of 4.
    pub async fn read(&self, buffer: &Buffer, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.buffer("read-back", Category::Staging, len, usage).await?;
        let mut encoder = self.encoder("read-back");
        encoder.copy_buffer_to_buffer(buffer.raw(), offset, staging.raw(), 0, len);
        self.queue().submit([encoder.finish()]);
        self.map(&staging, len).await
    }

    /// Maps a staging buffer, copies its first `len` bytes out and unmaps it.
    pub(super) async fn map(&self, staging: &Buffer, len: u64) -> Result<Vec<u8>, Error> {
        self.check()?;
        let (done, wait) = oneshot::channel();
        staging.raw().slice(..len).map_async(wgpu::MapMode::Read, move |result| {
            let _ = done.send(result);
        });
        self.poll()?;
        let failed = |why: &str| Error::Validation { what: "read-back".into(), message: why.into() };
        let mapped = wait.await;
        self.check()?;
        match mapped {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(failed("the buffer could not be mapped")),
            Err(_) => return Err(Error::Lost { reason: "the queue stopped".into() }),
        }
        let bytes = staging.raw().slice(..len).get_mapped_range().map_err(|e| failed(&e.to_string()))?.to_vec();
        staging.raw().unmap();
        Ok(bytes)
    }

    pub(super) fn encoder(&self, label: &str) -> wgpu::CommandEncoder {
        self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) })
    }

    /// Natively runs the callbacks of finished work, waiting for it; a browser does this by itself.
    fn poll(&self) -> Result<(), Error> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Err(error) = self.device().poll(wgpu::PollType::wait_indefinitely()) {
            self.check()?;
            return Err(Error::Validation { what: "waiting".into(), message: error.to_string() });
        }
        self.check()
    }
}
