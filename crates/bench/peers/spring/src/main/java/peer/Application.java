package peer;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.annotation.JsonProperty;
import io.awspring.cloud.sqs.annotation.SqsListener;
import io.awspring.cloud.sqs.listener.errorhandler.ExponentialBackoffErrorHandler;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.SpringBootVersion;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.http.MediaType;
import org.springframework.stereotype.Component;
import org.springframework.web.client.RestClient;
import reservation.v1.Inventory.CommitReservationRequest;
import reservation.v1.Inventory.CommitStatus;
import reservation.v1.Inventory.ReleaseHoldRequest;
import reservation.v1.Inventory.ReleaseStatus;
import reservation.v1.InventoryServiceGrpc;
import reservation.v1.InventoryServiceGrpc.InventoryServiceBlockingStub;

/** Handles reservation events with Spring Cloud AWS. Which guide each part follows: README.md in the folder above. */
@SpringBootApplication
public class Application {
    public static void main(String[] args) {
        if (args.length == 1 && args[0].equals("--version")) {
            System.out.printf(
                    "Spring Cloud AWS %s, Spring Boot %s on Java %s%n",
                    SqsListener.class.getPackage().getImplementationVersion(), SpringBootVersion.getVersion(), Runtime.version());
            return;
        }
        SpringApplication.run(Application.class, args);
    }

    /** Hides a failed message for 2 s at first, 30 s at most. */
    @Bean
    ExponentialBackoffErrorHandler<Object> errorHandler() {
        return ExponentialBackoffErrorHandler.builder()
                .initialVisibilityTimeoutSeconds(2)
                .maxVisibilityTimeoutSeconds(30)
                .build();
    }

    @Bean
    RestClient reservations(RestClient.Builder builder, @Value("${RESERVATION_API_BASE}") String base) {
        return builder.baseUrl(base).build();
    }

    @Bean
    InventoryServiceBlockingStub inventory(@Value("${INVENTORY_GRPC_ADDR}") String address) {
        var channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
        return InventoryServiceGrpc.newBlockingStub(channel);
    }
}

@JsonIgnoreProperties(ignoreUnknown = true)
record Event(
        String id,
        String type,
        @JsonProperty("reservation_id") String reservationId,
        @JsonProperty("event_id") String show,
        Payload payload) {}

@JsonIgnoreProperties(ignoreUnknown = true)
record Payload(
        Integer qty,
        @JsonProperty("seat_ids") List<String> seatIds,
        @JsonProperty("payment_intent_id") String paymentIntentId,
        @JsonProperty("user_id") String userId) {
    List<String> seats() {
        return seatIds == null ? List.of() : seatIds;
    }

    int quantity() {
        return qty == null ? seats().size() : qty;
    }
}

@JsonInclude(JsonInclude.Include.NON_NULL)
record Change(String status, @JsonProperty("payment_intent_id") String paymentIntentId) {}

@Component
class Worker {
    private static final Logger LOG = LoggerFactory.getLogger(Worker.class);

    private final RestClient reservations;
    private final InventoryServiceBlockingStub inventory;
    private final long inventoryTimeoutMs;

    Worker(
            RestClient reservations,
            InventoryServiceBlockingStub inventory,
            @Value("${INVENTORY_TIMEOUT_MS:2000}") long inventoryTimeoutMs) {
        this.reservations = reservations;
        this.inventory = inventory;
        this.inventoryTimeoutMs = inventoryTimeoutMs;
    }

    @SqsListener(value = "${SQS_QUEUE_URL}", messageVisibilitySeconds = "30")
    void handle(Event event) {
        switch (event.type()) {
            case "reservation.expired" -> {
                setStatus(event, "EXPIRED");
                release(event, "EXPIRED");
            }
            case "payment.approved" -> {
                setStatus(event, "CONFIRMED");
                commit(event);
            }
            case "payment.failed" -> {
                setStatus(event, "CANCELLED");
                release(event, "FAILED_PAYMENT");
            }
            default -> throw new IllegalArgumentException("unknown type: " + event.type());
        }
        LOG.info("done {} {}", event.type(), event.reservationId());
    }

    private void setStatus(Event event, String status) {
        reservations
                .patch()
                .uri("/internal/reservations/{id}", event.reservationId())
                .header("Idempotency-Key", event.id() + "/reservation-status")
                .contentType(MediaType.APPLICATION_JSON)
                .body(new Change(status, event.payload().paymentIntentId()))
                .retrieve()
                .body(Map.class);
    }

    private void release(Event event, String reason) {
        if (event.payload().quantity() == 0) {
            return;
        }
        var request = ReleaseHoldRequest.newBuilder()
                .setReservationId(event.reservationId())
                .setEventId(event.show())
                .addAllSeatIds(event.payload().seats())
                .setQuantity(event.payload().quantity())
                .setReason(reason)
                .setIdempotencyKey(event.id() + "/inventory-release")
                .build();
        ReleaseStatus status = withDeadline().releaseHold(request).getStatus();
        switch (status) {
            case RELEASE_STATUS_SUCCESS, RELEASE_STATUS_ALREADY_RELEASED, RELEASE_STATUS_NOT_FOUND -> {}
            default -> throw new IllegalStateException("release: " + status);
        }
    }

    private void commit(Event event) {
        if (event.payload().quantity() == 0) {
            return;
        }
        var request = CommitReservationRequest.newBuilder()
                .setReservationId(event.reservationId())
                .setEventId(event.show())
                .addAllSeatIds(event.payload().seats())
                .setQuantity(event.payload().quantity())
                .setPaymentIntentId(orEmpty(event.payload().paymentIntentId()))
                .setUserId(orEmpty(event.payload().userId()))
                .setIdempotencyKey(event.id() + "/inventory-commit")
                .build();
        CommitStatus status = withDeadline().commitReservation(request).getStatus();
        if (status != CommitStatus.COMMIT_STATUS_SUCCESS) {
            throw new IllegalStateException("commit: " + status);
        }
    }

    private InventoryServiceBlockingStub withDeadline() {
        return inventory.withDeadlineAfter(inventoryTimeoutMs, TimeUnit.MILLISECONDS);
    }

    private static String orEmpty(String text) {
        return text == null ? "" : text;
    }
}
