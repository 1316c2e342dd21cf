//! The consumer protocol's form of a member's assignment.

/// The partitions of a topic in a member's assignment, in the format of the consumer protocol: a version, then for each
/// topic its name and partitions. Unreadable bytes assign nothing.
pub(super) fn assigned(mut assignment: &[u8], topic: &str) -> Vec<u32> {
    fn number<const N: usize>(from: &mut &[u8]) -> Option<u32> {
        let (digits, rest) = from.split_first_chunk::<N>()?;
        *from = rest;
        Some(digits.iter().fold(0, |number, digit| number << 8 | u32::from(*digit)))
    }
    let from = &mut assignment;
    let mut partitions = Vec::new();
    let mut topics = || -> Option<()> {
        number::<2>(from)?;
        for _ in 0..number::<4>(from)? {
            let length = usize::try_from(number::<2>(from)?).ok()?;
            let (name, rest) = from.split_at_checked(length)?;
            *from = rest;
            for _ in 0..number::<4>(from)? {
                let partition = number::<4>(from)?;
                if name == topic.as_bytes() {
                    partitions.push(partition);
                }
            }
        }
        Some(())
    };
    topics();
    partitions
}

#[cfg(test)]
mod tests {
    use super::assigned;

    #[test]
    fn an_assignment_is_read_by_topic_and_one_that_is_cut_off_as_far_as_it_goes() {
        let topic = |name: &str, partitions: &[u32]| -> Vec<u8> {
            let mut bytes = u16::try_from(name.len()).expect("short").to_be_bytes().to_vec();
            bytes.extend(name.as_bytes());
            bytes.extend(u32::try_from(partitions.len()).expect("few").to_be_bytes());
            bytes.extend(partitions.iter().flat_map(|partition| partition.to_be_bytes()));
            bytes
        };
        let whole = [&[0, 3, 0, 0, 0, 2][..], &topic("other", &[9]), &topic("raw", &[0, 300])].concat();
        assert_eq!(assigned(&whole, "raw"), [0, 300]);
        assert_eq!(assigned(&whole[..whole.len() - 1], "raw"), [0]);
        assert_eq!(assigned(&whole, "none"), [0_u32; 0]);
        assert_eq!(assigned(b"", "raw"), [0_u32; 0]);
    }
}
