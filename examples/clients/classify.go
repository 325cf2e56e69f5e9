// Asks about a picture by HTTP:  go run classify.go http://localhost:8080 KEY MODEL < cat.jpg
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	ask, _ := http.NewRequest("POST", os.Args[1]+"/v1/models/"+os.Args[3]+":classify?top_k=2", os.Stdin)
	ask.Header = http.Header{"X-Api-Key": {os.Args[2]}, "Content-Type": {"image/jpeg"}, "Grpc-Timeout": {"5S"}}
	answer, err := http.DefaultClient.Do(ask)
	if err != nil {
		log.Fatal(err)
	}
	var told struct {
		Message string
		Classes []map[string]any
	}
	if json.NewDecoder(answer.Body).Decode(&told); answer.StatusCode != 200 {
		log.Fatalf("%s: %s", answer.Status, told.Message)
	}
	for _, class := range told.Classes {
		fmt.Printf("%s %.2f\n", class["label"], class["probability"])
	}
}
