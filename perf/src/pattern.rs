//! What a stream carries: the sender rewrites every byte before it sends, the receiver reads every
//! byte. Both are wide loops, so that they cost what real use costs and no more.

/// Rewrites every byte of a block; successive rounds differ.
pub fn rewrite(block: &mut [u8], round: u64) {
    block.fill(round.to_le_bytes()[0]);
}

/// Reads every byte of a block: the exclusive or of its 64-bit lanes. The caller hands the result
/// to `black_box`, so that the reads are not optimised away.
#[must_use]
pub fn read(block: &[u8]) -> u64 {
    let mut lanes = [0_u64; 8];
    let mut chunks = block.chunks_exact(64);
    for chunk in &mut chunks {
        for (lane, bytes) in lanes.iter_mut().zip(chunk.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            *lane ^= u64::from_le_bytes(word);
        }
    }
    let tail =
        chunks.remainder().iter().fold(0, |sum: u64, byte| sum.rotate_left(8) ^ u64::from(*byte));
    lanes.iter().fold(tail, |sum, lane| sum ^ lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_rewritten_and_rounds_differ() {
        let mut block = vec![7; 1000];
        rewrite(&mut block, 0x1ff);
        assert!(block.iter().all(|byte| *byte == 0xff));
        rewrite(&mut block, 0x200);
        assert!(block.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn every_byte_changes_what_is_read() {
        let mut block = vec![0; 200];
        let base = read(&block);
        for place in 0..block.len() {
            block[place] = 0x5a;
            assert_ne!(read(&block), base, "byte {place} is not read");
            block[place] = 0;
        }
    }
}
