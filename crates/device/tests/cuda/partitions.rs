//! Partitions of a card: one that is kept to a few multiprocessors, and one that has several sizes.

use super::*;

/// So few that a launch of many lanes comes in waves.
const FEW: NonZeroU32 = NonZeroU32::new(16).expect("16 is not zero");

#[test]
fn a_partition_that_is_aside_has_a_few_multiprocessors_and_is_the_last() {
    for (asked, granted) in [(1, 8), (16, 16), (20, 24)] {
        let Some((device, _)) = parted(NonZeroU32::new(asked)) else { return };
        let partitions = device.partitions();
        let all = partitions[0].units;
        let found: Vec<_> = partitions.iter().map(|partition| (partition.units, partition.aside)).collect();
        assert_eq!(found, [(all, false), (granted, true)], "{}", device.info().description);
    }
    let Some((device, _)) = parted(Some(NonZeroU32::MAX)) else { return };
    let partitions = device.partitions();
    assert!(partitions[1].aside && partitions[1].units == partitions[0].units, "more than all are all");
}

#[test]
fn a_partition_of_a_few_multiprocessors_conforms() {
    let Some((device, bell)) = parted(Some(FEW)) else { return };
    for precision in [Precision::Fp32, Precision::Bf16] {
        passes(&Subject { device: &device, wake: &bell, partition: PartitionId(1), precision });
    }
}

/// Whole networks in turn on all multiprocessors and on a few: the same bits, and what a launch takes is told, as proof that the few are all it has.
#[test]
fn a_few_multiprocessors_answer_with_the_same_bits_and_take_longer() {
    let Some((device, bell)) = parted(Some(FEW)) else { return };
    let mut random = StdRng::seed_from_u64(11);
    for (names, free) in NETWORKS {
        for precision in Precision::ALL {
            let models: Vec<Model> = names.iter().map(|name| class::load(&fixture(name)).unwrap()).collect();
            let whole = load(&device, &bell, &models, free, precision);
            let few = load_on(PartitionId(1), &device, &bell, &models, free, precision);
            let mut longer = 0.0;
            for lane_count in [1, 5, 32] {
                let lanes: Vec<Vec<Question>> =
                    (0..lane_count).map(|lane| vec![whole.question(&mut random, 1 + lane % 4)]).collect();
                let (on_all, on_few) = (whole.launch(&lanes), few.launch(&lanes));
                assert_eq!(on_all.answers, on_few.answers, "{} in {precision}, {lane_count} lanes", names[0]);
                let took = || (whole.launch(&lanes).took, few.launch(&lanes).took);
                let mut ratios: Vec<f64> =
                    (0..5).map(|_| took()).map(|(all, few)| few.div_duration_f64(all)).collect();
                ratios.sort_by(f64::total_cmp);
                longer = ratios[2];
                println!("{:<22} {precision}, {lane_count:>2} lanes: {longer:.2} times as long", names[0]);
            }
            // The widest of them has work for all multiprocessors.
            if names[0].starts_with("resnet26") {
                assert!(longer > 1.5, "{} in {precision} is as fast on few", names[0]);
            }
        }
    }
}

#[test]
fn launches_on_a_few_multiprocessors_and_on_all_run_at_once_and_answer_as_alone() {
    let Some((device, bell)) = parted(Some(FEW)) else { return };
    let models: Vec<Model> =
        (0..3).map(|number| class::load(&fixture(&format!("resnet26_narrow-{number}"))).unwrap()).collect();
    let whole = load(&device, &bell, &models, 1, Precision::Bf16);
    let few = load_on(PartitionId(1), &device, &bell, &models, 1, Precision::Bf16);
    let mut random = StdRng::seed_from_u64(12);
    let lanes: Vec<Vec<Question>> = (0..32).map(|_| vec![whole.question(&mut random, 4)]).collect();
    let alone = whole.launch(&lanes).answers;
    for id in 0..60 {
        let loaded = if id % 3 == 0 { &few } else { &whole };
        device.submit(loaded.of(LaunchId(id), &lanes)).unwrap();
    }
    let mut finished = Vec::new();
    while finished.len() < 60 {
        finished.extend(device.poll());
        if finished.len() < 60 {
            conformance::wait(&device, &bell).unwrap();
        }
    }
    assert!(finished.iter().all(|launch| launch.answers == alone));
    let few_ended = finished.iter().position(|launch| launch.id.0 % 3 == 0).unwrap();
    println!("of 60 launches the first on few multiprocessors was over after {few_ended} others");
}

/// The sizes that the layouts of [`in_sizes`] have aside.
const SIZES: [u32; 3] = [64, 32, 16];

/// A device with a partition over all multiprocessors, and one that has several sizes.
fn in_sizes() -> Option<(CudaDevice, Receiver<()>)> {
    opened(None, &SIZES.map(|size| NonZeroU32::new(size).unwrap()), None, cache())
}

#[test]
fn a_partition_of_several_sizes_has_each_in_a_layout_of_its_own_and_one_arena_for_all() {
    let Some((device, bell)) = in_sizes() else { return };
    let partitions = device.partitions();
    let found: Vec<_> =
        partitions.iter().map(|partition| (partition.units as u32, partition.aside)).collect();
    assert_eq!(found[1..], SIZES.map(|size| (size, true)), "{}", device.info().description);
    let ids: Vec<Vec<u64>> =
        device.layouts().iter().map(|layout| layout.iter().map(|id| id.0).collect()).collect();
    assert_eq!(ids, [vec![0], vec![0, 1], vec![0, 2], vec![0, 3]]);
    let models = vec![class::load(&fixture("resnet26_narrow-0")).unwrap()];
    let before = device.memory().arenas;
    let on = |id| {
        let begun = Instant::now();
        (load_on(PartitionId(id), &device, &bell, &models, 1, Precision::Bf16), begun.elapsed())
    };
    // The kernels are compiled for it, and weights packed.
    let whole = on(0);
    let all = device.memory().arenas - before;
    let (first, took_first) = on(1);
    let one = device.memory().arenas - before - all;
    let (second, took_second) = on(2);
    let two = device.memory().arenas - before - all - one;
    println!("the first size takes {one} and {took_first:?}, another {two} and {took_second:?}");
    assert!(two.0 * 4 < one.0, "{two} more for a size, {one} for the first");
    drop((whole, first, second));
}

#[test]
fn every_size_conforms() {
    let Some((device, bell)) = in_sizes() else { return };
    for partition in [PartitionId(1), PartitionId(3)] {
        passes(&Subject { device: &device, wake: &bell, partition, precision: Precision::Bf16 });
    }
}

/// Whoever keeps to one layout at a time never does this; whoever does gets the same bits all the same.
#[test]
fn launches_in_several_sizes_at_once_answer_as_alone() {
    let Some((device, bell)) = in_sizes() else { return };
    let models: Vec<Model> =
        (0..3).map(|number| class::load(&fixture(&format!("resnet26_narrow-{number}"))).unwrap()).collect();
    let in_size = |id| load_on(PartitionId(id), &device, &bell, &models, 1, Precision::Bf16);
    let sizes = [0, 1, 2, 3].map(in_size);
    let mut random = StdRng::seed_from_u64(13);
    let lanes: Vec<Vec<Question>> = (0..32).map(|_| vec![sizes[0].question(&mut random, 4)]).collect();
    let alone = sizes[0].launch(&lanes).answers;
    for id in 0..80 {
        device.submit(sizes[id as usize * 7 % 4].of(LaunchId(id), &lanes)).unwrap();
    }
    let mut finished = Vec::new();
    while finished.len() < 80 {
        finished.extend(device.poll());
        if finished.len() < 80 {
            conformance::wait(&device, &bell).unwrap();
        }
    }
    assert!(finished.iter().all(|launch| launch.answers == alone));
}
