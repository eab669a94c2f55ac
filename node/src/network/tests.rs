//! Networks on loopback, with nobody's rules behind them.

use spec::limits::{ENROLMENT_MESSAGE_MAX, GOSSIP_LIES, GOSSIP_PER_PEER_MAX};

use super::*;

#[test]
fn a_key_and_its_peer_name_each_other() {
    let key = TransportKey(ed25519::Keypair::generate().public().to_bytes());
    assert_eq!(peer_of(&key).as_ref().and_then(key_of), Some(key));
}

/// A network on a port that is free for both transports.
async fn listening(seed: u8) -> (Network, Ends, Address) {
    for _ in 0..20 {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listen = socket.local_addr().unwrap().to_string();
        drop(socket);
        if let Ok((network, ends)) = Network::listen(&SecretBytes::copy_of(&[seed; 32]), &listen).await {
            return (network, ends, Address(listen));
        }
    }
    panic!("no port is free for both transports");
}

async fn pair() -> (Ends, Ends, TransportKey, Address) {
    let (left, left_ends, _) = listening(1).await;
    let (right, right_ends, address) = listening(2).await;
    tokio::spawn(left.run());
    tokio::spawn(right.run());
    let mut seed = [2; 32];
    let key = ed25519::Keypair::from(ed25519::SecretKey::try_from_bytes(&mut seed).unwrap()).public().to_bytes();
    (left_ends, right_ends, TransportKey(key), address)
}

#[tokio::test]
async fn a_message_of_the_largest_size_arrives_and_a_larger_one_does_not() {
    let (left, mut right, to, address) = pair().await;
    right.orders.send(Order::Circle(vec![key(1)], Vec::new())).await.unwrap();
    let send = |bytes: Vec<u8>| left.orders.send(Order::Send { to, address: address.clone(), bytes });
    send(vec![7; MESSAGE_MAX]).await.unwrap();
    assert!(matches!(right.arrivals.recv().await, Some(Arrival::Bytes(_, bytes)) if bytes.len() == MESSAGE_MAX));
    send(vec![7; MESSAGE_MAX + 1]).await.unwrap();
    let got = right.arrivals.recv().await;
    assert!(matches!(got, Some(Arrival::Garbage(_, DecodeError::TooLong { .. }))), "{got:?}");
}

#[tokio::test]
async fn a_stranger_is_heard_only_briefly_until_it_is_a_member_and_hears_itself_what_it_is_answered() {
    let (mut left, mut right, to, address) = pair().await;
    let arrives = async |right: &mut Ends, length: usize| match right.arrivals.recv().await {
        Some(Arrival::Bytes(from, bytes)) => assert_eq!((from, bytes.len()), (key(1), length)),
        other => panic!("{other:?}"),
    };
    let send = |ends: &Ends, to: TransportKey, length: usize| {
        ends.orders.try_send(Order::Send { to, address: address.clone(), bytes: vec![7; length] }).unwrap();
    };
    send(&left, to, ENROLMENT_MESSAGE_MAX);
    arrives(&mut right, ENROLMENT_MESSAGE_MAX).await;
    send(&left, to, ENROLMENT_MESSAGE_MAX + 1);
    assert!(matches!(left.arrivals.recv().await, Some(Arrival::Undeliverable(_))));
    // It dialled: whom it asked may answer at length.
    send(&right, key(1), MESSAGE_MAX);
    assert!(matches!(left.arrivals.recv().await, Some(Arrival::Bytes(_, bytes)) if bytes.len() == MESSAGE_MAX));
    right.orders.send(Order::Circle(vec![key(1)], Vec::new())).await.unwrap();
    send(&right, key(1), 1);
    assert!(matches!(left.arrivals.recv().await, Some(Arrival::Bytes(..))));
    send(&left, to, MESSAGE_MAX);
    arrives(&mut right, MESSAGE_MAX).await;
}

#[tokio::test]
async fn a_burst_of_messages_to_one_peer_arrives_whole() {
    let (left, mut right, to, address) = pair().await;
    for number in 0..100_u8 {
        let order = Order::Send { to, address: address.clone(), bytes: vec![number; 1000] };
        left.orders.send(order).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 100 {
        match right.arrivals.recv().await {
            Some(Arrival::Bytes(_, bytes)) => seen.insert(bytes[0]),
            other => panic!("{other:?} after {} messages", seen.len()),
        };
    }
}

#[tokio::test]
async fn a_message_to_nobody_is_reported() {
    let (mut left, _right, _, address) = pair().await;
    let stranger = TransportKey(ed25519::Keypair::generate().public().to_bytes());
    let order = Order::Send { to: stranger, address, bytes: vec![1] };
    left.orders.send(order).await.unwrap();
    assert!(matches!(left.arrivals.recv().await, Some(Arrival::Undeliverable(key)) if key == stranger));
}

fn key(seed: u8) -> TransportKey {
    let mut seed = [seed; 32];
    let secret = ed25519::SecretKey::try_from_bytes(&mut seed).unwrap();
    TransportKey(ed25519::Keypair::from(secret).public().to_bytes())
}

/// So many networks, each of which holds a connection to the next, with everybody in everybody's circle.
async fn chain(length: u8) -> Vec<Ends> {
    let mut all = Vec::new();
    for seed in 1..=length {
        all.push(listening(seed).await);
    }
    let addresses: Vec<Address> = all.iter().map(|(_, _, address)| address.clone()).collect();
    let mut ends = Vec::new();
    for (seed, (network, own, _)) in (1..).zip(all) {
        tokio::spawn(network.run());
        let members = (1..=length).filter(|other| *other != seed).map(key).collect();
        let next = addresses.get(usize::from(seed)).map(|address| (key(seed + 1), address.clone()));
        own.orders.send(Order::Circle(members, next.into_iter().collect())).await.unwrap();
        ends.push(own);
    }
    ends
}

async fn next_news(ends: &mut Ends, within: Duration) -> Option<(u64, Vec<u8>)> {
    match tokio::time::timeout(within, ends.arrivals.recv()).await {
        Ok(Some(Arrival::News(name, bytes))) => Some((name, bytes)),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

/// Publishes until the first message arrives: the two must have met.
async fn meet(from: &Ends, to: &mut Ends) {
    for number in 0..100_u8 {
        from.orders.send(Order::Publish(vec![0, number])).await.unwrap();
        if let Some((name, _)) = next_news(to, Duration::from_millis(100)).await {
            to.orders.send(Order::Judge(name, Verdict::Accept)).await.unwrap();
            while let Some((name, _)) = next_news(to, Duration::from_millis(500)).await {
                to.orders.send(Order::Judge(name, Verdict::Accept)).await.unwrap();
            }
            return;
        }
    }
    panic!("they do not meet");
}

#[tokio::test]
async fn news_goes_on_to_a_third_only_once_it_was_judged_to_hold() {
    let mut ends = chain(3).await;
    let (mut third, mut second, first) = (ends.pop().unwrap(), ends.pop().unwrap(), ends.pop().unwrap());
    meet(&first, &mut second).await;
    meet(&second, &mut third).await;
    while next_news(&mut third, Duration::from_millis(500)).await.is_some() {}
    for (number, verdict) in [(1, Verdict::Ignore), (2, Verdict::Accept)] {
        first.orders.send(Order::Publish(vec![1, number])).await.unwrap();
        let (name, bytes) = next_news(&mut second, Duration::from_secs(5)).await.unwrap();
        assert_eq!(bytes, [1, number]);
        assert_eq!(next_news(&mut third, Duration::from_millis(300)).await, None, "nobody has judged it");
        second.orders.send(Order::Judge(name, verdict)).await.unwrap();
    }
    let (_, bytes) = next_news(&mut third, Duration::from_secs(5)).await.unwrap();
    assert_eq!(bytes, [1, 2], "what was ignored ended with the second");
}

#[tokio::test]
async fn a_liar_is_not_heard_any_more_however_long_it_was_honest() {
    let mut ends = chain(2).await;
    let (mut second, first) = (ends.pop().unwrap(), ends.pop().unwrap());
    meet(&first, &mut second).await;
    let mut says = async |what: Vec<u8>, verdict: Verdict| {
        first.orders.send(Order::Publish(what.clone())).await.unwrap();
        let heard = next_news(&mut second, Duration::from_secs(3)).await;
        if let Some((name, bytes)) = &heard {
            assert_eq!(*bytes, what);
            second.orders.send(Order::Judge(*name, verdict)).await.unwrap();
        }
        heard.is_some()
    };
    for number in 0..100 {
        assert!(says(vec![1, number], Verdict::Accept).await, "honest message {number}");
    }
    let mut lies = 0;
    while lies < 10 && says(vec![2, lies], Verdict::Reject).await {
        lies += 1;
    }
    assert!((1..=2).contains(&lies), "{lies} lies were heard");
    assert!(!says(vec![3], Verdict::Accept).await, "nor anything else");
}

#[tokio::test]
async fn who_is_not_in_the_circle_is_not_heard() {
    let mut ends = chain(2).await;
    let (mut second, first) = (ends.pop().unwrap(), ends.pop().unwrap());
    meet(&first, &mut second).await;
    second.orders.send(Order::Circle(vec![key(9)], Vec::new())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    first.orders.send(Order::Publish(vec![1])).await.unwrap();
    assert_eq!(next_news(&mut second, Duration::from_secs(3)).await, None);
}

#[tokio::test]
async fn nobody_is_blamed_for_true_news_that_a_stranger_was_the_first_to_bring() {
    let mut ends = chain(3).await;
    let (mut third, mut second, first) = (ends.pop().unwrap(), ends.pop().unwrap(), ends.pop().unwrap());
    meet(&first, &mut second).await;
    meet(&second, &mut third).await;
    meet(&third, &mut second).await;
    second.orders.send(Order::Circle(vec![key(3)], Vec::new())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    for number in 0..4 {
        first.orders.send(Order::Publish(vec![1, number])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        third.orders.send(Order::Publish(vec![1, number])).await.unwrap();
        let (name, bytes) = next_news(&mut second, Duration::from_secs(3)).await.expect("a member says it too");
        assert_eq!(bytes, [1, number]);
        second.orders.send(Order::Judge(name, Verdict::Accept)).await.unwrap();
    }
}

#[tokio::test]
async fn a_member_that_floods_is_not_heard_any_more_and_nobody_else_is_blamed() {
    let mut ends = chain(3).await;
    let (third, mut second, first) = (ends.pop().unwrap(), ends.pop().unwrap(), ends.pop().unwrap());
    meet(&first, &mut second).await;
    meet(&third, &mut second).await;
    for number in 0..=u8::try_from(GOSSIP_PER_PEER_MAX + 20).unwrap() {
        first.orders.send(Order::Publish(vec![2, number])).await.unwrap();
    }
    let mut heard = 0_u32;
    while let Some((name, _)) = next_news(&mut second, Duration::from_millis(500)).await {
        heard += 1;
        second.orders.send(Order::Judge(name, Verdict::Ignore)).await.unwrap(); // nobody reads what the third hears
    }
    assert!((1..=GOSSIP_PER_PEER_MAX).contains(&heard), "{heard}");
    // What went over the measure, and was dropped unseen, may be true: another says it, and something new.
    for number in heard..heard + GOSSIP_LIES + 2 {
        third.orders.send(Order::Publish(vec![2, u8::try_from(number).unwrap()])).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    third.orders.send(Order::Publish(vec![3])).await.unwrap();
    loop {
        let (_, bytes) =
            next_news(&mut second, Duration::from_secs(3)).await.expect("the third is to blame for nothing");
        if bytes == [3] {
            break;
        }
    }
    first.orders.send(Order::Publish(vec![4])).await.unwrap();
    while let Some((_, bytes)) = next_news(&mut second, Duration::from_secs(1)).await {
        assert_ne!(bytes, [4], "the flood is heard");
    }
}

/// Passes TCP on to an address; what was opened before the outage passes nothing on any more, as where a network dropped
/// its packets for long.
async fn line_to(address: &Address, outages: tokio::sync::watch::Receiver<u64>) -> Address {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = Address(listener.local_addr().unwrap().to_string());
    let target = address.0.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(&target).await.unwrap();
            let mut outages = outages.clone();
            outages.borrow_and_update();
            held.push(tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    // Both ends stay open, and hear nothing.
                    _ = outages.changed() => std::future::pending::<()>().await,
                }
            }));
        }
    });
    own
}

/// Sends into a connection that an outage left dead, and waits until all of it has come.
async fn all_comes_after_an_outage(messages: u8, length: usize) {
    let (left, mut right, to, address) = pair().await;
    right.orders.send(Order::Circle(vec![key(1)], Vec::new())).await.unwrap();
    let (outage, outages) = tokio::sync::watch::channel(0);
    let line = line_to(&address, outages).await;
    let send = |byte: u8, length: usize| {
        left.orders.send(Order::Send { to, address: line.clone(), bytes: vec![byte; length] })
    };
    send(0, 1).await.unwrap();
    assert!(matches!(right.arrivals.recv().await, Some(Arrival::Bytes(_, bytes)) if bytes[0] == 0));
    outage.send(1).unwrap();
    for byte in 1..=messages {
        send(byte, length).await.unwrap();
    }
    let mut missing: BTreeSet<u8> = (1..=messages).collect();
    let all = async {
        while !missing.is_empty() {
            // What came before may come again where its answer was lost.
            let Some(Arrival::Bytes(_, bytes)) = right.arrivals.recv().await else { return };
            missing.remove(&bytes[0]);
        }
    };
    // Much sooner than the kernel would give the connection up, and time enough for a machine that does other things too.
    let _late = tokio::time::timeout(3 * DELIVERY, all).await;
    assert_eq!(missing, BTreeSet::new());
}

#[tokio::test]
async fn a_connection_that_an_outage_left_dead_is_given_up_and_what_was_sent_into_it_sent_again() {
    all_comes_after_an_outage(1, 1).await;
    // More than are under way at once: the others wait in line meanwhile.
    all_comes_after_an_outage(u8::try_from(2 * UNDER_WAY).unwrap(), 1).await;
}

#[tokio::test]
async fn a_dead_connection_ends_also_where_no_byte_goes_into_it_any_more() {
    let more_than_a_socket_takes = u8::try_from(UNDER_WAY).unwrap();
    all_comes_after_an_outage(more_than_a_socket_takes, MESSAGE_MAX).await;
}

#[tokio::test]
async fn what_waits_for_a_host_that_does_not_answer_is_given_up_together_and_leaves_nothing_behind() {
    const MESSAGES: usize = 20 * UNDER_WAY;
    // Packets come to it, and nothing comes back.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address(mute.local_addr().unwrap().to_string());
    let _silent = tokio::net::UdpSocket::bind(&address.0).await.unwrap();
    let (left, mut ends, _) = listening(1).await;
    tokio::spawn(left.run());
    let begun = Instant::now();
    for _ in 0..MESSAGES {
        ends.orders.send(Order::Send { to: key(2), address: address.clone(), bytes: vec![7; 1000] }).await.unwrap();
    }
    for reported in 0..MESSAGES {
        let arrival = ends.arrivals.recv().await;
        assert!(matches!(arrival, Some(Arrival::Undeliverable(to)) if to == key(2)), "{arrival:?}, {reported}");
    }
    assert!(begun.elapsed() < LOST + 5 * SWEEP, "{:?}", begun.elapsed());
}
