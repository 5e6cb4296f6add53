//! Which ways there are, and which of them are worth many rounds.

use crate::sgemm::{Family, Kernel, Way};

/// Streams that space-only tries. One stream is time-only.
const STREAMS: [usize; 5] = [2, 4, 8, 16, 32];

/// The most streams that any way takes.
pub(super) const MOST_STREAMS: usize = STREAMS[STREAMS.len() - 1];

/// A way stays when its first look took no more than so much of its family's best.
const NEAR: f64 = 1.1;
/// At most so many of a family stay.
const MOST: usize = 3;

/// The super-kernel, as plans launch it: from a graph.
pub(super) const SUPER_KERNEL: Way =
    Way { family: Family::SuperKernel, kernel: Kernel::Ours, transposed: false, streams: 1, graph: true };

/// The same kernel for one tenant after the other.
pub(super) const ALONE: Way = Way { family: Family::TimeOnly, ..SUPER_KERNEL };

/// Every way but space-only.
pub(super) fn on_one_stream() -> Vec<Way> {
    let mut ways = vec![SUPER_KERNEL];
    for graph in [true, false] {
        ways.push(Way { graph, ..ALONE });
        for transposed in [false, true] {
            let cublas = |family, kernel| Way { family, kernel, transposed, streams: 1, graph };
            ways.push(cublas(Family::TimeOnly, Kernel::Gemm));
            ways.extend(
                [Kernel::Strided, Kernel::Pointers].map(|kernel| cublas(Family::CublasBatched, kernel)),
            );
        }
    }
    ways
}

/// Space-only for so many tenants, with A as it suits cuBLAS better.
pub(super) fn side_by_side(tenants: usize, transposed: bool) -> Vec<Way> {
    let mut ways = Vec::new();
    for streams in STREAMS.into_iter().filter(|&streams| streams <= tenants) {
        for graph in [true, false] {
            let family = Family::SpaceOnly;
            ways.push(Way { family, kernel: Kernel::Ours, transposed: false, streams, graph });
            ways.push(Way { family, kernel: Kernel::Gemm, transposed, streams, graph });
        }
    }
    ways
}

/// The places, among looks of `(family, time)`, of those that are measured in rounds: the fastest of each family, and
/// those near it.
pub(super) fn finalists(looks: &[(Family, f64)]) -> Vec<usize> {
    let mut chosen = Vec::new();
    for family in Family::ALL {
        let mut places: Vec<usize> = (0..looks.len()).filter(|&place| looks[place].0 == family).collect();
        places.sort_by(|&a, &b| looks[a].1.total_cmp(&looks[b].1));
        let best = places.first().map_or(0.0, |&place| looks[place].1);
        chosen.extend(places.into_iter().take(MOST).filter(|&place| looks[place].1 <= NEAR * best));
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_there_once_with_no_more_streams_than_tenants() {
        for tenants in [1, 2, 10, 120] {
            let mut ways = on_one_stream();
            ways.extend(side_by_side(tenants, true));
            assert!(ways.iter().all(|way| way.streams <= tenants));
            let distinct: std::collections::HashSet<&Way> = ways.iter().collect();
            assert_eq!(distinct.len(), ways.len());
        }
        assert!(side_by_side(1, false).is_empty(), "one tenant has nobody beside it");
    }

    #[test]
    fn the_best_of_each_family_and_those_near_it_go_on() {
        use Family::{CublasBatched, SpaceOnly, SuperKernel, TimeOnly};
        let looks = [
            (TimeOnly, 50.0),
            (TimeOnly, 40.0),
            (SpaceOnly, 10.0),
            (SpaceOnly, 10.9),
            (SpaceOnly, 10.5),
            (SpaceOnly, 10.6),
            (SuperKernel, 3.0),
            (CublasBatched, 4.0),
        ];
        assert_eq!(finalists(&looks), [1, 2, 4, 5, 6, 7]);
        assert!(finalists(&[]).is_empty());
    }
}
