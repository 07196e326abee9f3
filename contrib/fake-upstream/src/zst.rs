//! The zstd format without compression, for archives that real decoders read and that must be made quickly.
//!
//! As in RFC 8878: one frame of one segment, raw blocks only, no checksum.

/// The maximum size of a block.
const BLOCK: usize = 128 << 10;

/// A zstd file of these bytes.
pub(crate) fn store(content: &[u8]) -> Vec<u8> {
    let mut zst = vec![0x28, 0xb5, 0x2f, 0xfd];
    // A single segment, its size in four bytes.
    zst.push(0xa0);
    let size = u32::try_from(content.len()).expect("toy archives are small");
    zst.extend_from_slice(&size.to_le_bytes());
    let blocks = content.len().div_ceil(BLOCK).max(1);
    for number in 0..blocks {
        let block = &content[number * BLOCK..content.len().min((number + 1) * BLOCK)];
        let is_last = u32::from(number + 1 == blocks);
        let size = u32::try_from(block.len()).expect("blocks have at most 128 KiB");
        zst.extend_from_slice(&(size << 3 | is_last).to_le_bytes()[..3]);
        zst.extend_from_slice(block);
    }
    zst
}
