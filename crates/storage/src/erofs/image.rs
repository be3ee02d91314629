//! Blocks, contents and inodes of an image, as they come.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::FileType;

use super::format::{BLOCK, BLOCK_BYTES, Inode, LINKS_OFFSET, Layout, SLOT, SLOT_BYTES};
use crate::error::{Attempt, Result};
use crate::tarball::{Attributes, over_limit, sparse::Piece};

/// Where the root's inode stands.
pub(super) const ROOT_OFFSET: u64 = BLOCK;
/// The first block for everything else. The blocks before hold the root's attributes, at most 64 KiB of names and values.
const FIRST_BLOCK: u64 = 33;
/// Blocks for inodes that still have room, and so how well the ends of small files are packed.
const OPEN_BLOCKS: usize = 6;
/// Room for less than this is not worth keeping a block open, in bytes.
const ROOM_MIN: usize = 128;
const BUFFER_BYTES: usize = 1 << 20;

/// Writes an image; see [`super`].
#[derive(Debug)]
pub(crate) struct ImageWriter {
    output: Output,
    next_block: u64,
    open: Vec<OpenBlock>,
    pub(super) inodes: u32,
    /// Link counts that are not 1.
    links: HashMap<u64, u32>,
}

#[derive(Debug)]
struct OpenBlock {
    offset: u64,
    bytes: Vec<u8>,
}

/// What the writer knows of a file's content before it has it.
pub(super) struct Content<'a> {
    pub(super) size: u64,
    /// Where what is read belongs; everywhere, when absent.
    pub(super) pieces: Option<&'a [Piece]>,
}

impl ImageWriter {
    /// Writes into an empty file.
    pub(crate) fn new(file: File) -> Self {
        Self {
            output: Output::new(file),
            next_block: FIRST_BLOCK,
            open: Vec::new(),
            inodes: 0,
            links: HashMap::new(),
        }
    }

    /// Writes a file and returns the number of its inode.
    pub(super) fn file(
        &mut self,
        attributes: &Attributes,
        content: &Content<'_>,
        reader: &mut dyn Read,
    ) -> Result<u64> {
        let mut inode = Inode::new(FileType::RegularFile, attributes);
        inode.size = content.size;
        if let Some(pieces) = content.pieces {
            let offset = self.allocate(content.size.div_ceil(BLOCK))?;
            inode.place = block_number(offset)?;
            for piece in pieces {
                self.copy(reader, offset + piece.offset, piece.length)?;
            }
            return self.inode(inode, &[]);
        }
        self.content(inode, reader)
    }

    /// Writes a link, device or whatever else has no more than a few bytes.
    pub(super) fn small(&mut self, mut inode: Inode, content: &[u8]) -> Result<u64> {
        inode.size = content.len() as u64;
        self.content(inode, &mut &*content)
    }

    fn content(&mut self, mut inode: Inode, reader: &mut dyn Read) -> Result<u64> {
        let end = usize::try_from(inode.size % BLOCK).unwrap_or(0);
        let is_inline = end > 0 && inode.length() + end <= BLOCK_BYTES;
        let whole = if is_inline { inode.size - end as u64 } else { inode.size };
        if whole > 0 {
            let offset = self.allocate(whole.div_ceil(BLOCK))?;
            inode.place = block_number(offset)?;
            self.copy(reader, offset, whole)?;
        }
        if !is_inline {
            return self.inode(inode, &[]);
        }
        inode.layout = Layout::Inline;
        let mut bytes = [0; BLOCK_BYTES];
        reader.read_exact(&mut bytes[..end]).attempt(|| "read the end of a file".into())?;
        self.inode(inode, &bytes[..end])
    }

    fn copy(&mut self, reader: &mut dyn Read, offset: u64, length: u64) -> Result<()> {
        self.output.copy(reader, offset, length).attempt(|| "write content into the image".into())
    }

    /// Places an inode with the end of its content behind it.
    fn inode(&mut self, mut inode: Inode, end: &[u8]) -> Result<u64> {
        self.inodes += 1;
        inode.number = self.inodes;
        let mut bytes = inode.encode();
        bytes.extend(end);
        if bytes.len() > BLOCK_BYTES {
            // Only many attributes take so much; they may cross blocks, ends of contents may not and are not here.
            let offset = self.allocate((bytes.len() as u64).div_ceil(BLOCK))?;
            self.write(offset, &bytes)?;
            return Ok(offset / SLOT);
        }
        // The fullest block that has room.
        let room = |block: &OpenBlock| BLOCK_BYTES.checked_sub(block.bytes.len() + bytes.len());
        let fitting = (0..self.open.len()).filter_map(|at| Some((room(&self.open[at])?, at))).min();
        let at = match fitting {
            Some((_, at)) => at,
            None => self.open_block()?,
        };
        let block = &mut self.open[at];
        let offset = block.offset + block.bytes.len() as u64;
        block.bytes.extend(bytes);
        block.bytes.resize(block.bytes.len().next_multiple_of(SLOT_BYTES), 0);
        if block.bytes.len() + ROOM_MIN > BLOCK_BYTES {
            self.close(at)?;
        }
        Ok(offset / SLOT)
    }

    /// Opens one more block for inodes, closing the fullest one where there are enough.
    fn open_block(&mut self) -> Result<usize> {
        if self.open.len() >= OPEN_BLOCKS {
            let fullest = (0..self.open.len()).max_by_key(|&at| self.open[at].bytes.len());
            self.close(fullest.unwrap_or(0))?;
        }
        let offset = self.allocate(1)?;
        self.open.push(OpenBlock { offset, bytes: Vec::with_capacity(BLOCK_BYTES) });
        Ok(self.open.len() - 1)
    }

    fn close(&mut self, at: usize) -> Result<()> {
        let block = self.open.swap_remove(at);
        self.write(block.offset, &block.bytes)
    }

    pub(super) fn close_all(&mut self) -> Result<()> {
        while !self.open.is_empty() {
            self.close(self.open.len() - 1)?;
        }
        Ok(())
    }

    /// One name more (or less) for an inode. Directories are not counted here.
    pub(super) fn link(&mut self, inode: u64, more: bool) {
        let links = self.links.entry(inode).or_insert(1);
        *links = if more { links.saturating_add(1) } else { links.saturating_sub(1) };
    }

    /// Writes the link counts that turned out differently than expected.
    pub(super) fn write_links(&mut self) -> Result<()> {
        let mut links: Vec<(u64, u32)> = std::mem::take(&mut self.links).into_iter().collect();
        links.sort_unstable();
        for (inode, links) in links.into_iter().filter(|&(_, links)| links > 1) {
            self.write(inode * SLOT + LINKS_OFFSET, &links.to_le_bytes())?;
        }
        Ok(())
    }

    /// Takes blocks at the end of the image and returns the offset of the first.
    pub(super) fn allocate(&mut self, blocks: u64) -> Result<u64> {
        let offset = self.next_block * BLOCK;
        self.next_block = self
            .next_block
            .checked_add(blocks)
            .filter(|&end| end < u64::from(u32::MAX))
            .ok_or_else(|| over_limit("an EROFS image of 16 TiB"))?;
        Ok(offset)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.output.write(offset, bytes).attempt(|| "write the image".into())
    }

    /// Ends the image with its first block.
    pub(super) fn complete(mut self, root_offset: u64) -> Result<File> {
        let attempt = || "complete the image".to_owned();
        let blocks = u32::try_from(self.next_block).map_err(|_| over_limit("blocks"))?;
        let root = u16::try_from(root_offset / SLOT).map_err(|_| over_limit("the root's place"))?;
        let first = super::format::superblock(root, u64::from(self.inodes), blocks);
        self.output.write(0, &first).attempt(attempt)?;
        self.output.finish(u64::from(blocks) * BLOCK).attempt(attempt)
    }
}

/// The block number of an offset.
pub(super) fn block_number(offset: u64) -> Result<u32> {
    u32::try_from(offset / BLOCK).map_err(|_| over_limit("an EROFS image of 16 TiB"))
}

/// The file, with a buffer for what is written one after the other. What lies before the buffer is written at once.
struct Output {
    file: File,
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { start, filled, .. } = self;
        formatter.debug_struct("Output").field("start", start).field("filled", filled).finish()
    }
}

impl Output {
    fn new(file: File) -> Self {
        Self { file, buffer: vec![0; BUFFER_BYTES], start: 0, filled: 0 }
    }

    fn end(&self) -> u64 {
        self.start + self.filled as u64
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer[..self.filled], self.start)?;
        self.start = self.end();
        self.filled = 0;
        Ok(())
    }

    /// Makes `offset` the place where the buffer goes on. A small gap is filled, a large one becomes a hole.
    fn seek(&mut self, offset: u64) -> io::Result<()> {
        let gap = usize::try_from(offset.saturating_sub(self.end())).unwrap_or(usize::MAX);
        if gap > 0 && gap <= BLOCK_BYTES && self.filled + gap <= self.buffer.len() {
            self.buffer[self.filled..self.filled + gap].fill(0);
            self.filled += gap;
        } else if offset != self.end() {
            self.flush()?;
            self.start = offset;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(at) = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok())
            && at + bytes.len() <= self.filled
        {
            self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
            return Ok(());
        }
        if offset < self.end() {
            // Wholly or partly written out already; what is buffered may not overwrite it later.
            if offset + bytes.len() as u64 > self.start {
                self.flush()?;
            }
            return self.file.write_all_at(bytes, offset);
        }
        let mut reader = bytes;
        self.copy(&mut reader, offset, bytes.len() as u64)
    }

    /// Copies from a reader to a place at or after the buffer's end.
    fn copy(&mut self, reader: &mut dyn Read, offset: u64, mut left: u64) -> io::Result<()> {
        self.seek(offset)?;
        while left > 0 {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let room = &mut self.buffer[self.filled..];
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
            match reader.read(&mut room[..wanted]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.filled += count;
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn finish(mut self, length: u64) -> io::Result<File> {
        self.flush()?;
        self.file.set_len(length)?;
        Ok(self.file)
    }
}
