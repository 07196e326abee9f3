//! The xz format without compression, for archives that real decoders read and that must be made quickly.
//!
//! As in version 1.2.0 of the format's specification: one stream, one block, LZMA2 with stored chunks only, CRC32.

/// The maximum size of a stored chunk of LZMA2.
const CHUNK: usize = 1 << 16;

/// No reserved bits, CRC32 as the check.
const STREAM_FLAGS: [u8; 2] = [0, 1];

/// An xz file of these bytes.
pub(crate) fn store(content: &[u8]) -> Vec<u8> {
    let mut xz = Vec::with_capacity(content.len() + content.len() / 20_000 + 100);
    xz.extend_from_slice(b"\xfd7zXZ\0");
    xz.extend_from_slice(&STREAM_FLAGS);
    xz.extend_from_slice(&crc32(&STREAM_FLAGS));

    // Size of this header (12 bytes), flags (one filter), LZMA2 with one byte of properties (a dictionary of 64 KiB).
    let block = xz.len();
    let header = [2, 0, 0x21, 1, 8, 0, 0, 0];
    xz.extend_from_slice(&header);
    xz.extend_from_slice(&crc32(&header));
    for (number, chunk) in content.chunks(CHUNK).enumerate() {
        // The first chunk resets the dictionary.
        xz.push(if number == 0 { 1 } else { 2 });
        let size = u16::try_from(chunk.len() - 1).expect("chunks have at most 64 KiB");
        xz.extend_from_slice(&size.to_be_bytes());
        xz.extend_from_slice(chunk);
    }
    xz.push(0);
    let unpadded = xz.len() - block + 4;
    pad(&mut xz, block);
    xz.extend_from_slice(&crc32(content));

    let index = xz.len();
    xz.extend_from_slice(&[0, 1]);
    push_number(&mut xz, unpadded);
    push_number(&mut xz, content.len());
    pad(&mut xz, index);
    let sum = crc32(&xz[index..]);
    xz.extend_from_slice(&sum);

    let size = u32::try_from((xz.len() - index) / 4 - 1).expect("an index of one block is small");
    let mut footer = size.to_le_bytes().to_vec();
    footer.extend_from_slice(&STREAM_FLAGS);
    xz.extend_from_slice(&crc32(&footer));
    xz.extend_from_slice(&footer);
    xz.extend_from_slice(b"YZ");
    xz
}

/// Pads with zeros to a multiple of four, counted from `from`.
fn pad(xz: &mut Vec<u8>, from: usize) {
    while !(xz.len() - from).is_multiple_of(4) {
        xz.push(0);
    }
}

/// Seven bits per byte, the lowest first, with the top bit set on all but the last.
fn push_number(xz: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        xz.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    xz.push(number as u8);
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}
